//! Finding and loading CUDA's libraries at run time.
//!
//! Nothing is linked: the same program runs without a GPU. The driver is loaded under the name that
//! cudarc asks for; the other libraries by their path, so that the one that was chosen is the one
//! that is used, whatever else is installed.
#![allow(unsafe_code)]

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use cudarc::driver::{result, sys};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use super::cublaslt::CublasLt;
use super::nvrtc::Nvrtc;
use super::unavailable::CudaUnavailable;
use crate::error::EngineError;

/// The driver's library, by the name that it gives itself.
const DRIVER: &str = "libcuda.so.1";

/// Where drivers lie that the system's library path doesn't know: containers, WSL, NixOS.
const DRIVER_FOLDERS: &[&str] = &[
    "/usr/local/nvidia/lib64",
    "/usr/local/nvidia/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib/wsl/lib",
    "/run/opengl-driver/lib",
];

/// CUDA 13.0, as the driver writes it: cubins of its compilers, and the calls that cudarc was made
/// for, need a driver as new.
const DRIVER_VERSION_MIN: i32 = 13_000;

/// Where toolkits and distributions put libraries.
const TOOLKIT_FOLDERS: &[&str] =
    &["/opt/cuda/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64"];

/// How long `python3` may take to say where its packages are. It takes some 20 ms.
const PYTHON_WAIT: Duration = Duration::from_secs(2);

/// The libraries beside the driver; each is looked for once, when it is first asked for.
#[derive(Debug)]
pub(crate) struct Libraries {
    folders: Vec<PathBuf>,
    python_folders: OnceLock<Vec<PathBuf>>,
    nvrtc: OnceLock<Result<Nvrtc, EngineError>>,
    cublaslt: OnceLock<Result<CublasLt, EngineError>>,
}

/// A library to look for.
struct Wanted {
    /// The name it gives itself.
    file: &'static str,
    /// What it is, for whoever lacks it.
    role: &'static str,
    /// The Python package that holds it.
    package: &'static str,
    /// How the names begin of libraries that it loads itself by name, from the same folder.
    companions: Option<&'static str>,
}

const NVRTC: Wanted = Wanted {
    file: "libnvrtc.so.13",
    role: "CUDA's run-time compiler",
    package: "nvidia-cuda-nvrtc",
    companions: Some("libnvrtc-builtins.so"),
};

const CUBLASLT: Wanted = Wanted {
    file: "libcublasLt.so.13",
    role: "CUDA's matrix products",
    package: "nvidia-cublas",
    companions: None,
};

/// Loads the driver and starts it.
///
/// - `folders`: where to look for it first.
///
/// # Errors
/// [`CudaUnavailable`] says how far it got.
pub(crate) fn require_driver(folders: &[PathBuf]) -> Result<(), CudaUnavailable> {
    // Found once, it stays; not found, it may be in the next caller's folders.
    static LOADED: OnceLock<()> = OnceLock::new();
    if LOADED.get().is_none() {
        if !load_driver(folders) {
            return Err(CudaUnavailable::NoDriver);
        }
        LOADED.get_or_init(|| ());
    }
    let mut version = 0;
    // SAFETY: writes one number; the library is loaded.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }.result()?;
    if version < DRIVER_VERSION_MIN {
        return Err(CudaUnavailable::OldDriver {
            have: display_version(version),
            need: display_version(DRIVER_VERSION_MIN),
        });
    }
    Ok(result::init()?)
}

/// Whether the driver's library is loaded now, under a name by which cudarc finds it.
fn load_driver(folders: &[PathBuf]) -> bool {
    let candidates = folders
        .iter()
        .map(|folder| folder.join(DRIVER))
        .filter(|file| file.exists())
        .chain(std::iter::once(PathBuf::from(DRIVER)))
        .chain(DRIVER_FOLDERS.iter().map(|folder| Path::new(folder).join(DRIVER)));
    for file in candidates {
        if let Ok(library) = open(&file) {
            // Loaded for good, so that a later search by name finds it.
            std::mem::forget(library);
            break;
        }
    }
    // SAFETY: loads the driver's library, which is made for that; where it was loaded above, under
    // its own name, nothing is loaded again.
    unsafe { sys::is_culib_present() }
}

fn display_version(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

// === impl Libraries ===

impl Libraries {
    /// Looks in `folders` first, then where the system and Python keep libraries.
    #[must_use]
    pub(crate) fn new(folders: Vec<PathBuf>) -> Self {
        Self {
            folders,
            python_folders: OnceLock::new(),
            nvrtc: OnceLock::new(),
            cublaslt: OnceLock::new(),
        }
    }

    /// The run-time compiler.
    ///
    /// # Errors
    /// [`EngineError::Device`] says where it was looked for and what to install.
    pub(crate) fn nvrtc(&self) -> Result<&Nvrtc, EngineError> {
        let load = || self.load(&NVRTC).and_then(Nvrtc::new);
        self.nvrtc.get_or_init(load).as_ref().map_err(EngineError::clone)
    }

    /// The library of matrix products.
    ///
    /// # Errors
    /// [`EngineError::Device`] says where it was looked for and what to install.
    pub(crate) fn cublaslt(&self) -> Result<&CublasLt, EngineError> {
        let load = || self.load(&CUBLASLT).and_then(CublasLt::new);
        self.cublaslt.get_or_init(load).as_ref().map_err(EngineError::clone)
    }

    fn load(&self, wanted: &Wanted) -> Result<Library, EngineError> {
        let mut refusals = Vec::new();
        let mut attempt = |file: &Path| {
            preload_companions(file, wanted);
            let opened = open(file);
            if let (Err(why), true) = (&opened, file.is_absolute()) {
                refusals.push(why.to_string());
            }
            opened.ok()
        };
        let mut find = |folders: &[PathBuf]| {
            folders
                .iter()
                .map(|folder| folder.join(wanted.file))
                .filter(|file| file.exists())
                .find_map(|file| attempt(&file))
        };
        let found = find(&self.folders)
            // By its name alone: LD_LIBRARY_PATH and what `ldconfig` knows.
            .or_else(|| open(Path::new(wanted.file)).ok())
            .or_else(|| find(&toolkit_folders()))
            .or_else(|| find(self.python_folders.get_or_init(python_folders)));
        found.ok_or_else(|| wanted.missing(&refusals))
    }
}

impl Wanted {
    fn missing(&self, refusals: &[String]) -> EngineError {
        let Self { file, role, package, .. } = self;
        let refusals = match refusals {
            [] => String::new(),
            whys => format!(" (found and not loadable: {})", whys.join("; ")),
        };
        EngineError::Device(format!(
            "{file} ({role}) was not found{refusals}. Looked in the folders of \
             `engine.cuda_libraries`, LD_LIBRARY_PATH and the system's library path, \
             /usr/local/cuda*, and the packages of `python3`. Install it with `pip install \
             {package}`, or install the CUDA 13 toolkit, or name its folder in \
             `engine.cuda_libraries`"
        ))
    }
}

fn open(file: &Path) -> Result<Library, libloading::Error> {
    // SAFETY: runs the library's initialisers; NVIDIA's may run at any time and in any thread.
    unsafe { Library::open(Some(file), RTLD_NOW | RTLD_GLOBAL) }
}

/// Loads, from the folder of `file`, what that library will ask for by bare name.
fn preload_companions(file: &Path, wanted: &Wanted) {
    let (Some(start), Some(folder)) = (wanted.companions, file.parent()) else {
        return;
    };
    let is_companion = |name: &OsStr| {
        name.to_str().is_some_and(|name| name.starts_with(start) && !name.contains(".alt."))
    };
    for companion in
        entries(folder).iter().filter(|path| path.file_name().is_some_and(is_companion))
    {
        if let Ok(library) = open(companion) {
            // Loaded for good, so that the search by name finds it.
            std::mem::forget(library);
        }
    }
}

// --- Where libraries lie. ---

fn toolkit_folders() -> Vec<PathBuf> {
    let is_toolkit = |path: &PathBuf| {
        path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with("cuda"))
    };
    // `cuda` is the one that the machine's owner chose, then the newest.
    let mut toolkits: Vec<_> =
        entries(Path::new("/usr/local")).into_iter().filter(is_toolkit).collect();
    toolkits.sort_by_key(|path| (path.ends_with("cuda"), path.clone()));
    let mut folders = Vec::new();
    for toolkit in toolkits.iter().rev() {
        folders.push(toolkit.join("lib64"));
        folders.extend(entries(&toolkit.join("targets")).iter().map(|target| target.join("lib")));
    }
    folders.extend(TOOLKIT_FOLDERS.iter().map(PathBuf::from));
    folders
}

/// The folders with libraries in NVIDIA's packages, of the `python3` on the path.
fn python_folders() -> Vec<PathBuf> {
    let Some(paths) = python_path() else {
        return Vec::new();
    };
    paths
        .lines()
        .map(Path::new)
        // The empty entry is the current folder, whose owner need not be trusted.
        .filter(|path| path.is_absolute())
        .flat_map(|path| entries(&path.join("nvidia")))
        .map(|package| package.join("lib"))
        .collect()
}

/// Where `python3` looks for packages, one path a line. Nothing if there is none, or none in time.
fn python_path() -> Option<String> {
    let mut child = Command::new("python3")
        .args(["-c", "import sys; print('\\n'.join(sys.path))"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut output = child.stdout.take()?;
    // One message: the whole output.
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || {
        let mut text = String::new();
        let read = output.read_to_string(&mut text).map(|_| text);
        // Nobody receives once the wait is over.
        let _ = sender.send(read);
    });
    let answer = receiver.recv_timeout(PYTHON_WAIT);
    // It has ended already, or must.
    let _ = child.kill();
    let _ = child.wait();
    answer.ok()?.ok()
}

/// Paths in a folder, sorted; nothing where it can't be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_says_what_to_install() {
        let EngineError::Device(text) = CUBLASLT.missing(&["bad.so: truncated".to_owned()]) else {
            panic!("want a device error");
        };
        for part in ["libcublasLt.so.13", "pip install nvidia-cublas", "bad.so: truncated"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn versions_read_as_people_write_them() {
        assert_eq!(display_version(13_000), "13.0");
        assert_eq!(display_version(12_080), "12.8");
    }
}
