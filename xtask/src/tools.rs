//! Programs that come from the system's package manager, installed when they are missing.

use std::process::Command;

use anyhow::{Result, bail};

use crate::process::{announce, run, shown, succeeds};
use crate::workspace;

/// A program we need and where it comes from.
pub(crate) struct Tool {
    /// What it is called on the command line.
    name: &'static str,
    /// Why it is needed, for whoever is asked for a password.
    why: &'static str,
    /// Whether it is there and works.
    is_present: fn() -> bool,
    /// Package names by manager, best first; each may name several packages, space-separated.
    packages: &'static [(Manager, &'static [&'static str])],
}

/// The package managers we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manager {
    Apt,
    Dnf,
    Apk,
    Pacman,
    Zypper,
    Brew,
}

use Manager::{Apk, Apt, Brew, Dnf, Pacman, Zypper};

/// The compiler of `.proto` files, with the types that come with it; some distributions ship those
/// apart, and a compiler without them passes for a whole one until the first import.
pub(crate) const PROTOC: Tool = Tool {
    name: "protoc",
    why: "compiles the .proto files",
    is_present: || {
        let program = workspace::variable("PROTOC").unwrap_or_else(|| "protoc".to_owned());
        let types = workspace::variable("PROTOC_INCLUDE").map(|folder| format!("-I{folder}"));
        let mut args = vec!["--descriptor_set_out=/dev/null", "google/protobuf/descriptor.proto"];
        args.extend(types.as_deref());
        succeeds(program, &args)
    },
    packages: &[
        (Apt, &["protobuf-compiler libprotobuf-dev"]),
        (Dnf, &["protobuf-compiler protobuf-devel"]),
        (Apk, &["protoc protobuf-dev", "protobuf-dev"]),
        (Pacman, &["protobuf"]),
        (Zypper, &["protobuf-devel"]),
        (Brew, &["protobuf"]),
    ],
};

/// The server that says who is alive; the tests start their own.
pub(crate) const ETCD: Tool = Tool {
    name: "etcd",
    why: "the end-to-end tests start it",
    is_present: || succeeds("etcd", &["--version"]),
    packages: &[
        (Apt, &["etcd-server", "etcd"]),
        (Dnf, &["etcd"]),
        (Apk, &["etcd"]),
        (Pacman, &["etcd"]),
        (Zypper, &["etcd"]),
        (Brew, &["etcd"]),
    ],
};

/// A compiler of C++; most C compilers come with one, and some distributions ship them apart.
pub(crate) const CXX: Tool = Tool {
    name: "c++",
    why: "compiles the fuzzer",
    is_present: || succeeds("c++", &["--version"]),
    packages: &[
        (Apt, &["g++"]),
        (Dnf, &["gcc-c++"]),
        (Apk, &["g++"]),
        (Pacman, &["gcc"]),
        (Zypper, &["gcc-c++"]),
        (Brew, &["gcc"]),
    ],
};

/// Python with its `venv` module; Debian ships them apart.
pub(crate) const PYTHON: Tool = Tool {
    name: "python3",
    why: "the tests drive Baton with the OpenAI client",
    is_present: || succeeds("python3", &["-c", "import ensurepip, venv"]),
    packages: &[
        (Apt, &["python3 python3-venv"]),
        (Dnf, &["python3 python3-pip"]),
        (Apk, &["python3 py3-pip"]),
        (Pacman, &["python python-pip"]),
        (Zypper, &["python3 python3-pip"]),
        (Brew, &["python"]),
    ],
};

/// Installs those of `tools` that are missing.
///
/// # Errors
/// If one is still missing afterwards; the message says what to install by hand.
pub(crate) fn require(tools: &[&Tool]) -> Result<()> {
    tools.iter().filter(|tool| !(tool.is_present)()).try_for_each(|tool| tool.install())
}

// === impl Tool ===

impl Tool {
    fn install(&self) -> Result<()> {
        let Some(manager) = Manager::of_this_machine() else {
            bail!(
                "`{}` is missing ({}) and no known package manager is here: install it by hand",
                self.name,
                self.why
            );
        };
        announce(&format!("installing {} ({})", self.name, self.why));
        let candidates = self.packages_for(manager);
        if self.install_any(manager, candidates) {
            return Ok(());
        }
        // A fresh machine has no package lists, or old ones.
        if manager.refresh() && self.install_any(manager, candidates) {
            return Ok(());
        }
        bail!(
            "could not install `{}` ({}); tried {:?} with {manager:?}: install it by hand and run again",
            self.name,
            self.why,
            candidates
        )
    }

    fn packages_for(&self, manager: Manager) -> &'static [&'static str] {
        self.packages.iter().find(|(of, _)| *of == manager).map_or(&[], |(_, packages)| *packages)
    }

    fn install_any(&self, manager: Manager, candidates: &[&str]) -> bool {
        candidates.iter().any(|packages| {
            let mut command = manager.install(packages);
            eprintln!("    {}", shown(&command));
            run(&mut command).is_ok() && (self.is_present)()
        })
    }
}

// === impl Manager ===

impl Manager {
    /// The first one found.
    fn of_this_machine() -> Option<Self> {
        [Apt, Dnf, Apk, Pacman, Zypper, Brew]
            .into_iter()
            .find(|manager| succeeds(manager.program(), &["--version"]))
    }

    fn program(self) -> &'static str {
        match self {
            Apt => "apt-get",
            Dnf => "dnf",
            Apk => "apk",
            Pacman => "pacman",
            Zypper => "zypper",
            Brew => "brew",
        }
    }

    fn install(self, packages: &str) -> Command {
        let args: &[&str] = match self {
            Apt => &["install", "-y", "-q", "--no-install-recommends"],
            Dnf => &["install", "-y"],
            Apk => &["add"],
            Pacman => &["-S", "--noconfirm", "--needed"],
            Zypper => &["--non-interactive", "install"],
            Brew => &["install"],
        };
        let mut command = self.command();
        command.args(args).args(packages.split(' '));
        command
    }

    /// Fetches the package lists; true if there was something to fetch and it went well.
    fn refresh(self) -> bool {
        let args: &[&str] = match self {
            Apt => &["update", "-q"],
            Apk => &["update"],
            Pacman => &["-Sy", "--noconfirm"],
            Zypper => &["--non-interactive", "refresh"],
            Dnf | Brew => return false,
        };
        run(self.command().args(args)).is_ok()
    }

    /// The manager with the rights it needs: as root, through `sudo`, or as it is (brew).
    fn command(self) -> Command {
        let program = self.program();
        if self == Brew || is_root() {
            let mut command = Command::new("env");
            command.args(self.environment()).arg(program);
            return command;
        }
        let mut command = Command::new("sudo");
        command.arg("env").args(self.environment()).arg(program);
        command
    }

    fn environment(self) -> &'static [&'static str] {
        match self {
            // No questions, and no service started by the package: the tests start their own etcd.
            Apt => &["DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1"],
            Dnf | Apk | Pacman | Zypper | Brew => &[],
        }
    }
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
