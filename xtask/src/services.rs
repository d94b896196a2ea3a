//! Real parts beside the tests: a broker of Apache Kafka, an S3 server, and jars for Spark.
//!
//! Their programs are kept in the user's cache. Tests start them as they need them; `cargo xtask services up` starts one of
//! each on the usual ports, for people.

use crate::packages::run;
use crate::python::cache;
use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The variable with the folder of Kafka's jars; set it to use your own.
pub(crate) const KAFKA_JARS: &str = "ADTALLY_KAFKA_JARS";

/// The variable with the program of the S3 server; set it to use your own.
pub(crate) const S3_SERVER: &str = "ADTALLY_S3_SERVER";

/// The variable with the folder of the jars with which Spark reads the lake; set it to use your own.
pub(crate) const SPARK_JARS: &str = "ADTALLY_SPARK_JARS";

/// The port of the broker for people, and of its controller.
const KAFKA_PORTS: [u16; 2] = [9_092, 9_093];

/// The port of the S3 server for people.
const S3_PORT: u16 = 9_000;

/// How often to look whether the broker is up: ten seconds in all.
const TRIES: u32 = 100;

/// The programs of the services.
pub(crate) struct Services {
    pub(crate) kafka_jars: PathBuf,
    pub(crate) s3_server: PathBuf,
}

/// Provides the programs: the jars from Maven Central, and the server built from its sources.
///
/// # Errors
/// Names the part that cannot be had.
pub(crate) fn provide(root: &Path) -> Result<Services, String> {
    Ok(Services { kafka_jars: kafka_jars(root)?, s3_server: s3_server(root)? })
}

/// Provides Kafka's jars.
///
/// # Errors
/// When they cannot be had.
pub(crate) fn kafka_jars(root: &Path) -> Result<PathBuf, String> {
    jars(root, KAFKA_JARS, "kafka").map_err(|error| format!("Apache Kafka cannot be had: {error}"))
}

/// Provides the jars with which Spark reads the lake, from Maven Central. Spark itself is a Python package.
///
/// # Errors
/// When they cannot be had.
pub(crate) fn spark_jars(root: &Path) -> Result<PathBuf, String> {
    jars(root, SPARK_JARS, "spark").map_err(|error| format!("Spark's jars for the lake cannot be had: {error}"))
}

/// The folder with the jars of `tests/NAME/pom.xml`: the one in the variable, or one in the user's cache, which is filled on
/// first use and whenever the list changes.
fn jars(root: &Path, variable: &str, name: &str) -> Result<PathBuf, String> {
    if let Some(folder) = env::var_os(variable) {
        return Ok(folder.into());
    }
    let list = root.join("tests").join(name).join("pom.xml");
    let wanted = fs::read(&list).map_err(|error| format!("cannot read {}: {error}", list.display()))?;
    let folder = cache()?.join("adtally").join(name);
    // Written last, so that an incomplete installation is repeated.
    let installed = folder.join("installed.xml");
    if fs::read(&installed).is_ok_and(|found| found == wanted) {
        return Ok(folder);
    }
    // Jars of an earlier list would be used as well.
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(|error| format!("cannot delete {}: {error}", folder.display()))?;
    }
    eprintln!("$ mvn dependency:copy-dependencies --file {}", list.display());
    let mut mvn = Command::new("mvn");
    mvn.args(["--quiet", "--batch-mode", "dependency:copy-dependencies", "-DincludeScope=runtime", "--file"])
        .arg(&list);
    mvn.arg(format!("-DoutputDirectory={}", folder.display())).stdout(Stdio::null());
    run(&mut mvn).map_err(|error| {
        format!(
            "{error}: install the package maven and connect this machine to the network, or name a folder with the jars in \
             {variable}"
        )
    })?;
    fs::write(&installed, wanted).map_err(|error| format!("cannot write {}: {error}", installed.display()))?;
    Ok(folder)
}

fn s3_server(root: &Path) -> Result<PathBuf, String> {
    if let Some(program) = env::var_os(S3_SERVER) {
        return Ok(program.into());
    }
    // A workspace and a folder of its own: its libraries would change the features of those of the product.
    let target = cache()?.join("adtally/s3-target");
    let manifest = root.join("tests/s3/Cargo.toml");
    let manifest = manifest.display().to_string();
    let target_text = target.display().to_string();
    crate::cargo(&["build", "--locked", "--manifest-path", &manifest], &[("CARGO_TARGET_DIR", &target_text)])
        .map_err(|error| format!("the S3 server cannot be had: {error}"))?;
    Ok(target.join("debug/adtally-test-s3"))
}

/// Provides the jars of Apache Kafka, and prints their folder. `adtally demo --kafka` calls it.
///
/// # Errors
/// When they cannot be had.
pub(crate) fn print_kafka_jars(root: &Path) -> Result<(), String> {
    println!("{}", kafka_jars(root)?.display());
    Ok(())
}

/// Starts both services on the usual ports, in the background.
///
/// # Errors
/// Names the part that cannot be had, or does not start.
pub(crate) fn up(root: &Path) -> Result<(), String> {
    crate::packages::provide()?;
    let Services { kafka_jars, s3_server } = provide(root)?;
    let folder = folder()?;
    if folder.join("pids").exists() {
        return Err("the services run already: `cargo xtask services down` stops them".to_owned());
    }
    fs::create_dir_all(folder.join("s3/adtally"))
        .map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    let properties = set_up_broker(root, &kafka_jars, &folder, KAFKA_PORTS)?;
    let mut kafka = java(&kafka_jars, "kafka.Kafka");
    let kafka = background(kafka.arg(&properties), &folder.join("kafka.log"))?;
    let mut s3 = Command::new("sh");
    // The server ends when its standard input is closed.
    s3.args(["-c", "sleep infinity | exec \"$@\"", "sh"])
        .arg(s3_server)
        .arg(folder.join("s3"))
        .arg(S3_PORT.to_string());
    let s3 = background(&mut s3, &folder.join("s3.log"))?;
    let mut pids = fs::File::create(folder.join("pids")).map_err(|error| format!("cannot write the pids: {error}"))?;
    writeln!(pids, "{kafka}\n{s3}").map_err(|error| format!("cannot write the pids: {error}"))?;
    let is_up = |port: u16| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    for _ in 0..TRIES {
        if is_up(KAFKA_PORTS[0]) && is_up(S3_PORT) {
            println!("Apache Kafka: 127.0.0.1:{}", KAFKA_PORTS[0]);
            println!("S3: http://127.0.0.1:{S3_PORT}, bucket adtally. For object stores of Adtally:");
            println!(
                "export AWS_ENDPOINT=http://127.0.0.1:{S3_PORT} AWS_ALLOW_HTTP=true AWS_REGION=us-east-1 \
                 AWS_ACCESS_KEY_ID=adtally AWS_SECRET_ACCESS_KEY=adtally-secret"
            );
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    down()?;
    Err(format!("the services do not start: see kafka.log and s3.log in {}", folder.display()))
}

/// Writes the settings of a broker into a folder, and formats its data there unless that was done before. `ports` are the
/// port of the broker and that of its controller. Returns the file of the settings.
///
/// # Errors
/// When the files cannot be written, or Kafka's tool fails.
pub(crate) fn set_up_broker(root: &Path, jars: &Path, folder: &Path, ports: [u16; 2]) -> Result<PathBuf, String> {
    let template = fs::read_to_string(root.join("tests/kafka/server.properties"))
        .map_err(|error| format!("cannot read the settings of the broker: {error}"))?;
    let settings = template
        .replace("PORT_OF_CONTROLLER", &ports[1].to_string())
        .replace("PORT", &ports[0].to_string())
        .replace("FOLDER", &folder.join("kafka").display().to_string());
    let properties = folder.join("server.properties");
    fs::write(&properties, settings).map_err(|error| format!("cannot write {}: {error}", properties.display()))?;
    if !folder.join("kafka").exists() {
        let mut format = java(jars, "kafka.tools.StorageTool");
        format.args(["format", "--standalone", "-t", "4L6g3nShT-eMCtK--X86sw", "-c"]).arg(&properties);
        run(format.stdout(Stdio::null())).map_err(|error| format!("Apache Kafka cannot be set up: {error}"))?;
    }
    Ok(properties)
}

/// Stops both services. Their data is kept.
///
/// # Errors
/// When nothing runs.
pub(crate) fn down() -> Result<(), String> {
    let pids = folder()?.join("pids");
    let list = fs::read_to_string(&pids).map_err(|_| "the services do not run".to_owned())?;
    for pid in list.lines() {
        // Each is the leader of a group of its own. It may have ended.
        let _ = run(Command::new("kill").args(["--", &format!("-{pid}")]).stderr(Stdio::null()));
    }
    fs::remove_file(&pids).map_err(|error| format!("cannot delete {}: {error}", pids.display()))
}

fn folder() -> Result<PathBuf, String> {
    Ok(cache()?.join("adtally/services"))
}

/// A command that runs a class of Kafka.
pub(crate) fn java(jars: &Path, class: &str) -> Command {
    let mut command = Command::new("java");
    command.args(["-Xmx512m", "-XX:+UseSerialGC", "-cp"]).arg(jars.join("*")).arg(class);
    command
}

/// Starts a command in a process group of its own; returns its pid.
fn background(command: &mut Command, log: &Path) -> Result<u32, String> {
    use std::os::unix::process::CommandExt;
    let file = fs::File::create(log).map_err(|error| format!("cannot write {}: {error}", log.display()))?;
    let copy = file.try_clone().map_err(|error| format!("cannot write {}: {error}", log.display()))?;
    command.process_group(0).stdin(Stdio::null()).stdout(file).stderr(copy);
    let child = command.spawn().map_err(|error| format!("cannot run {}: {error}", command.get_program().display()))?;
    Ok(child.id())
}
