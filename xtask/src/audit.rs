//! `cargo xtask audit`: what has become known of our dependencies.

use anyhow::Result;

use crate::deny;
use crate::process::announce;

/// Looks every dependency up in the list of known vulnerabilities, and whether its version was withdrawn.
///
/// # Errors
/// If the list can't be fetched, or has one of them.
pub(crate) fn run() -> Result<()> {
    announce("looking dependencies up in RustSec's advisories");
    deny::check(&["advisories"])
}
