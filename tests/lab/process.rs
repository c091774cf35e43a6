//! Child processes that never outlive us: each runs under a shell that kills it, and removes its folder, when the
//! pipe from us closes, however we end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A folder that is removed when dropped.
#[derive(Debug)]
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("clustersync-lab-{}-{number}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const WRAPPER: &str = r#"
folder=$1; pidfile=$2; log=$3; shift 3
exec 3<&0 </dev/null
"$@" >>"$log" 2>&1 3<&- & child=$!
echo $child > "$pidfile.new"; mv "$pidfile.new" "$pidfile"
( cat <&3 >/dev/null 2>&1; kill -9 $child 2>/dev/null; for pause in 0 0.5 2; do sleep $pause; rm -rf "$folder" 2>/dev/null; done ) & watcher=$!
wait $child; code=$?
kill $watcher 2>/dev/null
exit $code
"#;

/// A running program.
#[derive(Debug)]
pub struct Process {
    wrapper: Child,
    pub pid: u32,
    pub log: PathBuf,
}

impl Process {
    /// Start; `folder` is removed if this process dies without cleaning up.
    pub fn start(
        program: &Path,
        args: &[String],
        env: &[(String, String)],
        folder: &Path,
        name: &str,
    ) -> Self {
        let pidfile = folder.join(format!("{name}.pid"));
        let _ = fs::remove_file(&pidfile);
        let log = folder.join(format!("{name}.log"));
        let wrapper = Command::new("sh")
            .args(["-c", WRAPPER, "lab"])
            .arg(folder)
            .arg(&pidfile)
            .arg(&log)
            .arg(program)
            .args(args)
            .envs(env.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let pid = loop {
            if let Some(pid) = fs::read_to_string(&pidfile).ok().and_then(|text| text.trim().parse().ok()) {
                break pid;
            }
            assert!(Instant::now() < deadline, "{name} did not start");
            std::thread::sleep(Duration::from_millis(5));
        };
        Self { wrapper, pid, log }
    }

    pub fn signal(&self, signal: &str) {
        let _ = Command::new("kill").arg(format!("-{signal}")).arg(self.pid.to_string()).status();
    }

    /// SIGKILL, and wait until it is gone.
    pub fn kill(&mut self) {
        self.signal("KILL");
        // Not `wait`: it closes the pipe, and the shell would take that for our end and remove the folder.
        while self.wrapper.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGTERM, and how long it took to end; panics after a minute.
    pub fn stop(&mut self) -> Duration {
        let began = Instant::now();
        self.signal("TERM");
        while self.wrapper.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < Duration::from_secs(60), "it does not stop");
            std::thread::sleep(Duration::from_millis(10));
        }
        began.elapsed()
    }

    pub fn is_running(&mut self) -> bool {
        self.wrapper.try_wait().unwrap().is_none()
    }

    /// What it wrote.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            self.kill();
        }
    }
}
