"use strict";
new EventSource("/events").onmessage = (event) => {
  document.getElementById("snapshot").textContent = JSON.stringify(JSON.parse(event.data), null, 2);
};
