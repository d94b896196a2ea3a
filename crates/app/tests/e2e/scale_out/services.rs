//! A real broker of Apache Kafka, and an S3 server with faults on request.

use crate::site::{provided, wait_for};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use tempfile::TempDir;

/// A free port of this machine.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A broker with one node.
pub(super) struct Broker {
    folder: TempDir,
    address: String,
    child: Mutex<Child>,
}

impl Broker {
    /// The broker that tests share. It ends with the test process, which holds its standard input.
    pub(super) fn shared() -> &'static Broker {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        SHARED.get_or_init(Broker::start)
    }

    /// A broker of its own.
    pub(super) fn start() -> Broker {
        let folder = tempfile::Builder::new().prefix("adtally-kafka-").tempdir().unwrap();
        let (port, controller) = (free_port(), free_port());
        let settings = include_str!("../../../../../tests/kafka/server.properties")
            .replace("PORT_OF_CONTROLLER", &controller.to_string())
            .replace("PORT", &port.to_string())
            .replace("FOLDER", &folder.path().join("data").display().to_string());
        std::fs::write(folder.path().join("server.properties"), settings).unwrap();
        let mut format = java("kafka.tools.StorageTool");
        format.args(["format", "--standalone", "-t", "4L6g3nShT-eMCtK--X86sw", "-c"]);
        run(format.arg(folder.path().join("server.properties")));
        let address = format!("127.0.0.1:{port}");
        let child = Mutex::new(launch(folder.path()));
        let broker = Broker { folder, address, child };
        broker.wait();
        broker
    }

    /// `127.0.0.1:9092`.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Kills the broker.
    pub(super) fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.stdin.take().unwrap().write_all(b"keep\n").unwrap();
        child.wait().unwrap();
    }

    /// Starts it again after a kill.
    pub(super) fn revive(&self) {
        *self.child.lock().unwrap() = launch(self.folder.path());
        self.wait();
    }

    fn wait(&self) {
        wait_for("the broker", || TcpStream::connect(&self.address).ok());
        // It listens before it can answer.
        wait_for("the broker's answer", || {
            let listed = kcat(&["-L", "-b", &self.address, "-m", "2"]).output().unwrap();
            listed.status.success().then_some(())
        });
    }

    /// Runs a tool of Kafka.
    pub(super) fn tool(&self, class: &str, arguments: &[&str]) {
        run(java(class).args(["--bootstrap-server", &self.address]).args(arguments));
    }

    /// Makes a topic.
    pub(super) fn create_topic(&self, name: &str, partitions: u32) {
        let partitions = partitions.to_string();
        let arguments = ["--create", "--topic", name, "--partitions", &partitions, "--replication-factor", "1"];
        self.tool("org.apache.kafka.tools.TopicCommand", &arguments);
    }

    /// All records of a topic: their headers, and their values.
    pub(super) fn records(&self, topic: &str) -> Vec<(String, String)> {
        let format = "%h\u{1f}%s\n";
        let output =
            kcat(&["-C", "-b", &self.address, "-t", topic, "-o", "beginning", "-e", "-q", "-f", format]).output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        let split =
            |line: &str| line.split_once('\u{1f}').map(|(headers, value)| (headers.to_owned(), value.to_owned()));
        text.lines().map(|line| split(line).unwrap()).collect()
    }

    /// The names of its topics, in the words of a tool.
    pub(super) fn topics(&self) -> String {
        String::from_utf8(kcat(&["-L", "-b", &self.address, "-m", "5"]).output().unwrap().stdout).unwrap()
    }

    /// Produces lines, each a record with a key, by librdkafka with this partitioner.
    pub(super) fn produce(&self, topic: &str, partitioner: &str, lines: impl IntoIterator<Item = (String, String)>) {
        let mut command = kcat(&["-P", "-b", &self.address, "-t", topic, "-K", "|"]);
        let mut child =
            command.args(["-X", &format!("partitioner={partitioner}")]).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let text: String = lines.into_iter().map(|(key, line)| format!("{key}|{}\n", line.trim_end())).collect();
        stdin.write_all(text.as_bytes()).unwrap();
        drop(stdin);
        assert!(child.wait().unwrap().success());
    }

    /// The lines in the committed records of a topic, sorted. Each record must end with a line ending.
    pub(super) fn lines(&self, topic: &str) -> Vec<Vec<u8>> {
        let mut command = kcat(&["-C", "-b", &self.address, "-t", topic, "-o", "beginning", "-e", "-q", "-f", "%s"]);
        let output = command.args(["-X", "isolation.level=read_committed"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = output.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        let mut lines: Vec<Vec<u8>> = lines.map(<[u8]>::to_vec).collect();
        lines.sort_unstable();
        lines
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap();
        drop(child.stdin.take());
        drop(child.wait());
    }
}

/// Starts a broker that is killed when its standard input is closed, however this process ends.
fn launch(folder: &Path) -> Child {
    // A line keeps the folder, so that the broker can be started again; the end of this process does not.
    let script = "\"$@\" </dev/null >\"$FOLDER/log\" 2>&1 & pid=$!; read -r keep; kill -9 $pid; wait $pid; \
                  [ -n \"$keep\" ] || rm -rf \"$FOLDER\"";
    let jars = provided("ADTALLY_KAFKA_JARS").join("*");
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", "java", "-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-cp"]).arg(jars);
    command.arg("kafka.Kafka").arg(folder.join("server.properties")).env("FOLDER", folder);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn java(class: &str) -> Command {
    let mut command = Command::new("java");
    command.args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]);
    command.arg(provided("ADTALLY_KAFKA_JARS").join("*")).arg(class);
    command
}

fn kcat(arguments: &[&str]) -> Command {
    let mut command = Command::new("kcat");
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{command:?}: {text}");
}

/// An S3 server over a folder, with one bucket.
pub(super) struct S3 {
    _folder: TempDir,
    url: String,
    child: Child,
    agent: ureq::Agent,
}

impl S3 {
    /// Starts a server.
    pub(super) fn start() -> S3 {
        let folder = tempfile::Builder::new().prefix("adtally-s3-").tempdir().unwrap();
        std::fs::create_dir(folder.path().join("bucket")).unwrap();
        let mut command = Command::new(provided("ADTALLY_S3_SERVER"));
        let mut child = command.arg(folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        let agent = ureq::Agent::config_builder().build().into();
        S3 { _folder: folder, url: url.trim().to_owned(), child, agent }
    }

    /// The name of its bucket.
    pub(super) fn bucket(&self) -> &str {
        "bucket"
    }

    /// The environment with which object stores find it.
    pub(super) fn variables(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT", self.url.clone()),
            ("AWS_ACCESS_KEY_ID", "adtally".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "adtally-secret".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
        ]
    }

    /// Sets its faults, one `name=value` a line.
    pub(super) fn set_faults(&self, faults: &str) {
        self.agent.put(format!("{}/_faults", self.url)).send(faults).unwrap();
    }

    /// How many requests a fault has hit.
    pub(super) fn hits(&self, fault: &str) -> u64 {
        let mut answer = self.agent.get(format!("{}/_faults", self.url)).call().unwrap();
        let told = answer.body_mut().read_to_string().unwrap();
        let hits = told.lines().find_map(|line| line.strip_prefix(fault)?.strip_prefix('=')?.parse().ok());
        hits.unwrap_or_else(|| panic!("no fault {fault} in {told}"))
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
