//! Programs that are built once and then kept: those that `deploy/setup.sh bench` builds, and those in Go of the bench itself.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

/// Where `deploy/setup.sh bench` installs them.
const INSTALLED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools/bin");

/// An installed program, or one of this name that is in the search path. `version` is an argument with which it ends well.
pub fn find(name: &str, version: &str) -> Option<OsString> {
    let installed = Path::new(INSTALLED).join(name).into_os_string();
    [installed, name.into()].into_iter().find(|program| {
        let answer = Command::new(program).arg(version).stdout(Stdio::null()).stderr(Stdio::null()).status();
        answer.is_ok_and(|status| status.success())
    })
}

/// Builds a Go program of the bench from its sources, unless it is to be taken as it is.
///
/// # Errors
/// There is no Go, or the build fails: in words.
pub fn build_go(sources: &str, program: &Path, build: bool) -> Result<(), String> {
    let program = std::path::absolute(program).map_err(|error| error.to_string())?;
    if !build {
        return if program.exists() { Ok(()) } else { Err("it is not built".into()) };
    }
    let output = Command::new("go").args(["build", "-o"]).arg(&program).arg(".").current_dir(sources).output();
    let output = output.map_err(|error| format!("go cannot be started: {error} (Debian: apt install golang-go)"))?;
    if output.status.success() {
        return Ok(());
    }
    let log = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("`go build` failed: {}", log.lines().next_back().unwrap_or("it said nothing")))
}
