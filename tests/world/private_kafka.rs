//! A broker that tests may stop, kill, freeze and put behind a wire.
//!
//! Starting one takes seconds, so tests take turns with one broker: each holds the [`Lease`] while
//! it needs it, and gets it back as it should be, running and reachable. A shell keeps the broker,
//! gives it its signals, and ends it when this process ends, however that happens.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

use super::cluster::Cluster;
use super::private::free_ports;
use super::slow_wire::Slowness;
use super::{Proxy, World, certificates, eventually};

/// What the broker's settings have that those of the shared one have not: whatever takes minutes
/// takes seconds here.
const HASTY: &str = "\
group.min.session.timeout.ms=500
transaction.abort.timed.out.transaction.cleanup.interval.ms=500
log.retention.check.interval.ms=500
log.initial.task.delay.ms=500
log.cleaner.backoff.ms=500
log.segment.delete.delay.ms=500
";

/// Small and soon up. Without the level its log, which tells when it has started, would be empty.
const JAVA_FLAGS: [&str; 5] =
    ["-Xms256m", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dlog4j2.level=INFO"];

/// The password of the user `app`.
pub(crate) const SECRET: &str = "sentinel-of-kafka";

/// Obeys one word a line. At the end of its input, which is the end of this process, it cleans up.
const KEEPER: &str = r#"
home=$1; shift; pid=
while read -r word; do
  case $word in
    start) "$@" >"$home/log" 2>&1 </dev/null & pid=$! ;;
    freeze) kill -STOP $pid ;;
    thaw) kill -CONT $pid ;;
    stop) kill -TERM $pid; wait $pid; pid= ;;
    kill) kill -KILL $pid; wait $pid; pid= ;;
  esac
  echo done
done 2>/dev/null
{ [ -z "$pid" ] || { kill -KILL $pid; wait $pid; }; } 2>/dev/null
rm -rf "$home"
"#;

static BROKER: Mutex<Option<PrivateKafka>> = Mutex::new(None);

/// The broker, for one test alone.
pub(crate) struct Lease(MutexGuard<'static, Option<PrivateKafka>>);

impl std::ops::Deref for Lease {
    type Target = PrivateKafka;

    fn deref(&self) -> &PrivateKafka {
        self.0.as_ref().expect("it was started with the lease")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.recover();
    }
}

/// Whether the broker runs, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Running,
    Frozen,
    Gone,
}

pub(crate) struct PrivateKafka {
    /// For the tests' own clients, which take the direct way.
    pub(crate) cluster: Arc<Cluster>,
    /// Before the broker: all that the program says to it and hears from it.
    pub(crate) wire: Proxy,
    /// The same wire may be slow, too.
    pub(crate) slowness: Slowness,
    /// The address to give to the program.
    pub(crate) wire_address: String,
    /// Where TLS is spoken, to the user `app`, who may do what [`acl`](PrivateKafka::acl) allows.
    /// Elsewhere everybody may do everything.
    pub(crate) secure_address: String,
    keeper: Mutex<Keeper>,
    log: PathBuf,
}

struct Keeper {
    shell: Child,
    answers: BufReader<ChildStdout>,
    life: Life,
}

impl PrivateKafka {
    /// Waits for its turn.
    pub(crate) fn lease() -> Lease {
        // A test that has failed has left nothing behind that recovering does not mend.
        let mut broker = BROKER.lock().unwrap_or_else(PoisonError::into_inner);
        if broker.is_none() {
            *broker = Some(PrivateKafka::start());
        }
        let lease = Lease(broker);
        lease.recover();
        lease
    }

    fn start() -> PrivateKafka {
        let [port, wired_port, secure_port, controller_port] = free_ports();
        let secure_address = format!("127.0.0.1:{secure_port}");
        let slowness = Slowness::default();
        let slow = slowness.before(format!("127.0.0.1:{wired_port}"));
        let (wire, url) = Proxy::before(&format!("kafka://{slow}/"));
        let wire_address = url["kafka://".len()..].trim_end_matches('/').to_owned();
        let home = TempDir::new().unwrap().keep();
        let (properties, data) = (home.join("server.properties"), home.join("data"));
        let data = data.display();
        let certificates = certificates();
        let file = |name: &str| std::fs::read_to_string(certificates.path().join(name)).unwrap();
        let identity = home.join("identity.pem");
        std::fs::write(&identity, file("good.key") + &file("good.crt")).unwrap();
        std::fs::write(home.join("ca.crt"), file("ca.crt")).unwrap();
        let settings = format!(
            "process.roles=broker,controller\nnode.id=1\n\
             listeners=DIRECT://127.0.0.1:{port},WIRED://127.0.0.1:{wired_port},SECURE://{secure_address},CONTROLLER://127.0.0.1:{controller_port}\n\
             advertised.listeners=DIRECT://127.0.0.1:{port},WIRED://{wire_address},SECURE://{secure_address}\n\
             listener.security.protocol.map=DIRECT:PLAINTEXT,WIRED:PLAINTEXT,SECURE:SASL_SSL,CONTROLLER:PLAINTEXT\n\
             inter.broker.listener.name=DIRECT\ncontroller.listener.names=CONTROLLER\n\
             controller.quorum.voters=1@127.0.0.1:{controller_port}\nlog.dirs={data}\n\
             auto.create.topics.enable=false\nlog.retention.ms=-1\ngroup.initial.rebalance.delay.ms=0\n\
             offsets.topic.num.partitions=1\noffsets.topic.replication.factor=1\n\
             transaction.state.log.num.partitions=1\ntransaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\nlog.cleaner.dedupe.buffer.size=16777216\n\
             sasl.enabled.mechanisms=PLAIN\nssl.keystore.type=PEM\nssl.keystore.location={}\n\
             listener.name.secure.plain.sasl.jaas.config=\
             org.apache.kafka.common.security.plain.PlainLoginModule required user_app=\"{SECRET}\";\n\
             authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
             super.users=User:ANONYMOUS\n{HASTY}",
            identity.display()
        );
        std::fs::write(&properties, settings).unwrap();
        let format = java("kafka.tools.StorageTool");
        let arguments = ["format", "--cluster-id", "contentflow-tests-0000", "--config"];
        let formatted =
            Command::new(&format[0]).args(&format[1..]).args(arguments).arg(&properties).output();
        let formatted = formatted.unwrap();
        assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stdout));

        let mut shell = Command::new("bash");
        shell.args(["-c", KEEPER, "keeper"]).arg(&home).args(java("kafka.Kafka")).arg(&properties);
        shell.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        let answers = BufReader::new(shell.stdout.take().unwrap());
        let broker = PrivateKafka {
            cluster: Arc::new(Cluster::at(&format!("127.0.0.1:{port}"))),
            wire,
            slowness,
            wire_address,
            secure_address,
            keeper: Mutex::new(Keeper { shell, answers, life: Life::Gone }),
            log: home.join("log"),
        };
        broker.restart();
        broker
    }

    /// Who may trust the broker.
    pub(crate) fn authority(&self) -> String {
        self.log.with_file_name("ca.crt").display().to_string()
    }

    /// Changes what the users may do, with the broker's own tool.
    pub(crate) fn acl(&self, arguments: &[&str]) {
        let command = java("org.apache.kafka.tools.AclCommand");
        let mut tool = Command::new(&command[0]);
        tool.args(&command[1..])
            .args(["--bootstrap-server", &self.cluster.brokers])
            .args(arguments);
        let output = tool.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts it again after it was stopped or killed, with the data that it had.
    pub(crate) fn restart(&self) {
        self.keeper().tell("start", Life::Gone, Life::Running);
        eventually("the broker has started", || {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            assert!(!log.contains("Exiting Kafka due to fatal exception"), "{log}");
            log.contains("Kafka Server started")
        });
    }

    /// It answers no more, but its connections stay open.
    pub(crate) fn freeze(&self) {
        self.keeper().tell("freeze", Life::Running, Life::Frozen);
    }

    pub(crate) fn thaw(&self) {
        self.keeper().tell("thaw", Life::Frozen, Life::Running);
    }

    /// Stops it as it should be stopped.
    pub(crate) fn stop(&self) {
        self.keeper().tell("stop", Life::Running, Life::Gone);
    }

    pub(crate) fn kill(&self) {
        self.keeper().tell("kill", Life::Running, Life::Gone);
    }

    /// A world whose topics are on this broker; the program reaches it through the wire. It gives
    /// up soon what does not answer, and is given up soon itself when it is killed.
    pub(crate) fn world(&self, name: &str) -> World {
        let mut world = World::new(name);
        world.move_to(&self.cluster);
        world.set("kafka.brokers", &self.wire_address);
        world.set("kafka.properties.session.timeout.ms", 3_000);
        world.set("kafka.properties.heartbeat.interval.ms", 300);
        world.set("kafka.properties.reconnect.backoff.max.ms", 500);
        world
    }

    /// The file with the first records of a partition.
    pub(crate) fn segment(&self, topic: &str, partition: i32) -> PathBuf {
        let home = self.log.parent().unwrap();
        home.join(format!("data/{topic}-{partition}/00000000000000000000.log"))
    }

    fn recover(&self) {
        self.wire.open();
        self.slowness.set(0);
        let life = self.keeper().life;
        match life {
            Life::Running => {}
            Life::Frozen => self.thaw(),
            Life::Gone => self.restart(),
        }
    }

    fn keeper(&self) -> MutexGuard<'_, Keeper> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keeper {
    fn tell(&mut self, word: &str, from: Life, to: Life) {
        assert_eq!(self.life, from, "{word}");
        self.life = to;
        writeln!(self.shell.stdin.as_mut().unwrap(), "{word}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        assert_eq!(answer, "done\n", "{word}");
    }
}

/// The command that runs that class.
fn java(main: &str) -> Vec<String> {
    let java =
        std::env::var("JAVA_HOME").map_or("java".to_owned(), |home| format!("{home}/bin/java"));
    let mut command = vec![java, "-cp".to_owned(), classpath()];
    command.extend(JAVA_FLAGS.map(str::to_owned));
    command.push(main.to_owned());
    command
}

/// Where `dev/stack` has found Kafka.
fn classpath() -> String {
    let stack = std::env::var("CONTENTFLOW_STACK_DIR")
        .map_or_else(|_| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/stack"), PathBuf::from);
    let file = stack.join("kafka.classpath");
    let text = std::fs::read_to_string(&file);
    text.unwrap_or_else(|error| panic!("{}: {error}: run dev/stack up", file.display()))
        .trim()
        .to_owned()
}
