//! Children that never outlive this process, however it ends.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// How often a wait looks again.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// A command that the kernel kills when the process that started it dies (`PR_SET_PDEATHSIG`, set by `setpriv` of
/// util-linux, which then becomes the program: the process id is the program's).
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

type Job = (Command, SyncSender<io::Result<Child>>);

/// Starts a command made by [`command`].
///
/// The kernel's "parent" is the thread that started the child, so all children are started by one thread that lives
/// as long as this process; started from a test's or a runtime's own threads they would die with those.
pub(crate) fn spawn(command: Command) -> Running {
    static SPAWNER: OnceLock<SyncSender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, todo) = sync_channel::<Job>(1);
        thread::spawn(move || {
            for (mut command, done) in todo {
                let _ = done.send(command.spawn());
            }
        });
        jobs
    });
    let text = format!("{command:?}");
    let (done, started) = sync_channel(1);
    spawner.send((command, done)).unwrap();
    let child = started.recv().unwrap();
    Running { child: child.unwrap_or_else(|error| panic!("cannot start {text}: {error}")), group: None }
}

/// As [`spawn`], with a process group of its own that is killed as a whole: a server that saves has a child, which
/// would go on without it.
pub(crate) fn spawn_group(mut command: Command) -> Running {
    command.process_group(0);
    let mut running = spawn(command);
    running.group = Some(running.child.id());
    running
}

/// A running child, killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) child: Child,
    group: Option<u32>,
}

impl Running {
    /// Waits until the child has ended; `None` when it still runs at `deadline`.
    pub(crate) fn wait_until(&mut self, deadline: Instant) -> Option<ExitStatus> {
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            thread::sleep(POLL);
        }
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// `kill -9` of the process, and of its group if it has one, and waits for the end. Harmless when it has ended.
    pub(crate) fn kill(&mut self) {
        if let Some(group) = self.group.take() {
            // fails when nobody is left, which is as good
            let _ = send("KILL", &format!("-{group}"));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal by name: `STOP`, `CONT`, `TERM`, `INT`.
    pub(crate) fn signal(&self, name: &str) {
        assert!(send(name, &self.child.id().to_string()), "kill -s {name} failed");
    }
}

/// The shell's own `kill`: a small machine has no program of that name. Whether the target was there.
pub(crate) fn send(signal: &str, target: &str) -> bool {
    let mut shell = Command::new("sh");
    shell.args(["-c", "kill -s \"$1\" -- \"$2\" 2>/dev/null", "sh", signal, target]);
    shell.status().unwrap().success()
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Asks `probe` until it gives something; panics with its last complaint after `limit`.
///
/// The limit only decides when to give up: nothing is concluded from how long it took.
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match probe() {
            Ok(value) => return value,
            Err(complaint) if Instant::now() >= deadline => panic!("{what}: gave up after {limit:?}: {complaint}"),
            Err(_) => thread::sleep(POLL),
        }
    }
}
