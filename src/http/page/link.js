// The stream of snapshots, which comes back by itself after whatever cut it.
//
// An EventSource reconnects after a lost connection, but not after an answer that is no stream (a proxy's 502 while the
// server restarts), and does not notice one that has gone silent (a frozen process, a suspended laptop). So every end is
// treated alike here: close, wait, open anew. Snapshots are whole, nothing has to be caught up with.

// The server sends one each second; after this long without one it is away, milliseconds.
const SILENCE_MS = 5_000;

// The waits between two tries, milliseconds: a restart is noticed soon, a long absence costs next to nothing.
const RETRY_MS = [300, 500, 1_000, 2_000, 3_000];

// Follows the stream at an address. `on.snapshot` gets each snapshot; `on.live` and `on.away` are told when it comes and goes,
// `on.refused` when the server is there but will not show anything without a token.
export function follow(address, on) {
  let stream = null;
  let tries = 0;
  let isLive = false;
  let watch = 0;

  function open() {
    stream = new EventSource(address);
    stream.onmessage = (message) => {
      wait();
      on.snapshot(JSON.parse(message.data));
      if (isLive) return;
      isLive = true;
      tries = 0;
      on.live();
    };
    stream.onerror = () => {
      if (stream.readyState === EventSource.CLOSED) ask();
      reopen();
    };
    wait();
  }

  function wait() {
    clearTimeout(watch);
    watch = setTimeout(reopen, SILENCE_MS);
  }

  function reopen() {
    stream.close();
    clearTimeout(watch);
    watch = setTimeout(open, RETRY_MS[Math.min(tries, RETRY_MS.length - 1)]);
    tries += 1;
    isLive = false;
    on.away();
  }

  // Why the server does not want to: the stream itself does not tell.
  async function ask() {
    try {
      const answer = await fetch("status.json", { cache: "no-store" });
      if (answer.status === 401 || answer.status === 403) on.refused();
    } catch {
      // Away, which is known.
    }
  }

  open();
}
