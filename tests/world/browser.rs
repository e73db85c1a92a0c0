//! A headless Chromium with one page, driven over its own protocol (DevTools) on a pair of pipes.
//!
//! Not WebDriver: that takes one more program (chromedriver), and tells of the console only what
//! the page's own scripts have written, late and without refused resources. And no crate: the ones
//! that speak this protocol bring its whole vocabulary as generated code and a WebSocket stack, for
//! the dozen commands that stand here. Pipes need no port, and end with the test.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::private::signal;
use super::{DEADLINE, eventually};

/// What Chromium is to do for itself: nothing.
const FLAGS: [&str; 9] = [
    "--headless",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--disable-gpu",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--hide-scrollbars",
    // The shared memory of a container is small.
    "--disable-dev-shm-usage",
];

/// What a key needs to be a key: its name, its code, and the text that it writes.
const KEYS: [(&str, u32, &str); 5] =
    [("Tab", 9, ""), ("Enter", 13, "\r"), (" ", 32, " "), ("ArrowLeft", 37, ""), ("End", 35, "")];

/// A browser. Closed when it is dropped.
pub(crate) struct Browser {
    process: Child,
    commands: Option<ChildStdin>,
    messages: Receiver<Value>,
    session: String,
    sent: u64,
    /// What the console shows in red: an error or a warning, an exception, a resource that did not
    /// come, a breach of the policy; the source of each, and all that is known of it.
    complaints: Vec<String>,
    /// Its profile.
    _directory: TempDir,
}

impl Browser {
    /// Starts one with an empty page.
    pub(crate) fn start() -> Browser {
        let directory = TempDir::new().unwrap();
        let profile = format!("--user-data-dir={}", directory.path().display());
        let mut command = Command::new("sh");
        // Chromium reads commands from descriptor 3 and answers on 4.
        let chromium = std::env::var("CHROMIUM").unwrap_or_else(|_| "chromium".to_owned());
        command.args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null", "sh", &chromium]);
        command.args(FLAGS).arg(profile);
        // Root has no sandbox to go into.
        if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
            command.arg("--no-sandbox");
        }
        command.arg("about:blank").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        let commands = process.stdin.take();
        let messages = receive(process.stdout.take().unwrap());
        let mut browser = Browser {
            process,
            commands,
            messages,
            session: String::new(),
            sent: 0,
            complaints: Vec::new(),
            _directory: directory,
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach);
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser.window(1_280, 900);
        browser
    }

    /// Sends a command and waits for its answer.
    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.sent += 1;
        let mut command = json!({ "id": self.sent, "method": method, "params": parameters });
        if !self.session.is_empty() {
            command["sessionId"] = json!(self.session);
        }
        let commands = self.commands.as_mut().unwrap();
        commands.write_all(format!("{command}\0").as_bytes()).unwrap();
        let since = Instant::now();
        loop {
            let message = self.messages.recv_timeout(DEADLINE.saturating_sub(since.elapsed()));
            let mut message = message.unwrap_or_else(|error| {
                panic!("chromium does not answer {method}: {error}. Is it installed? See: dev/stack deps")
            });
            if message["id"] == self.sent {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].take();
            }
            self.note(&message);
        }
    }

    fn note(&mut self, message: &Value) {
        let parameters = &message["params"];
        let source = match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => "exception",
            Some("Runtime.consoleAPICalled")
                if ["error", "warning", "assert"]
                    .contains(&parameters["type"].as_str().unwrap()) =>
            {
                "console"
            }
            Some("Log.entryAdded")
                if ["error", "warning"]
                    .contains(&parameters["entry"]["level"].as_str().unwrap()) =>
            {
                parameters["entry"]["source"].as_str().unwrap()
            }
            _ => return,
        };
        self.complaints.push(format!("{source}: {parameters}"));
    }

    /// Goes to an address and waits until it is loaded.
    pub(crate) fn open(&mut self, url: &str) {
        let answer = self.call("Page.navigate", json!({ "url": url }));
        assert!(answer["errorText"].is_null(), "{url}: {answer}");
        self.eventually("the page is loaded", "document.readyState === 'complete'");
    }

    /// The value of an expression, in the page.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let question =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut answer = self.call("Runtime.evaluate", question);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    /// The text of the first element with that selector.
    pub(crate) fn text(&mut self, selector: &str) -> String {
        let text = self.value(&format!("document.querySelector({selector:?})?.textContent"));
        text.as_str().unwrap_or_else(|| panic!("there is no {selector}")).to_owned()
    }

    /// Waits until an expression holds in the page.
    pub(crate) fn eventually(&mut self, what: &str, expression: &str) {
        eventually(what, || self.value(expression) == json!(true));
    }

    /// Makes the window that large, pixels; a narrow one is a phone's.
    pub(crate) fn window(&mut self, width: u32, height: u32) {
        let is_phone = width < 600;
        let scale = if is_phone { 2 } else { 1 };
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": scale, "mobile": is_phone,
        });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// What the reader prefers: `light` or `dark`.
    pub(crate) fn prefer(&mut self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// Presses a key.
    pub(crate) fn press(&mut self, key: &str) {
        let (_, code, text) = KEYS.iter().find(|(name, ..)| *name == key).unwrap();
        let mut event = json!({ "type": "keyDown", "key": key, "windowsVirtualKeyCode": code });
        if !text.is_empty() {
            event["text"] = json!(text);
        }
        self.call("Input.dispatchKeyEvent", event.clone());
        event["type"] = json!("keyUp");
        self.call("Input.dispatchKeyEvent", event);
    }

    /// What the window shows, as a PNG file.
    pub(crate) fn picture(&mut self) -> Vec<u8> {
        let picture = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        BASE64_STANDARD.decode(picture["data"].as_str().unwrap()).unwrap()
    }

    /// What the console has shown in red so far, the source of each first: `network: {...}` for a
    /// resource that did not come.
    pub(crate) fn complaints(&mut self) -> &[String] {
        // The answer comes after all that was said before.
        self.value("null");
        &self.complaints
    }
}

/// The messages, each ended by a zero byte.
fn receive(from: ChildStdout) -> Receiver<Value> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for message in BufReader::new(from).split(0) {
            let Ok(message) = message else { return };
            if sender.send(serde_json::from_slice(&message).unwrap()).is_err() {
                return;
            }
        }
    });
    receiver
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Without anyone to command it, it ends.
        self.commands = None;
        let since = Instant::now();
        while self.process.try_wait().unwrap().is_none() {
            if since.elapsed() > Duration::from_secs(10) {
                signal(&[self.process.id()], "KILL");
                drop(self.process.wait());
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
