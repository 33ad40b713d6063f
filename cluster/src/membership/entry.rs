//! A worker's entry in a store: JSON with a seal.
//!
//! What is damaged on its way into a store stays there, and everybody reads it: another number of a life, another
//! address, another fingerprint. The seal is xxh3-64 over the entry without it, so that a damaged entry is
//! none. Against faults, not forgery.

use serde_json::Value;
use words::WorkerInfo;
use xxhash_rust::xxh3::xxh3_64;

/// The field with the seal.
const SEAL: &str = "seal";

/// Why bytes are no entry.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// It isn't what was written.
    #[error("its seal is missing or of another entry")]
    Damaged,
    /// It is another worker's than its key says.
    #[error("it is of another worker")]
    Misplaced,
    /// It is no worker in JSON.
    #[error(transparent)]
    Format(#[from] serde_json::Error),
}

/// The entry of a worker.
///
/// # Errors
/// None that a worker's fields could cause.
pub fn write(info: &WorkerInfo) -> Result<Vec<u8>, EntryError> {
    let mut entry = serde_json::to_value(info)?;
    entry[SEAL] = seal(&entry)?.into();
    Ok(serde_json::to_vec(&entry)?)
}

/// The worker of an entry. Fields that this version doesn't know are sealed as well, and passed over.
///
/// # Errors
/// [`EntryError`] if the bytes are not what [`write()`] made.
pub fn read(bytes: &[u8]) -> Result<WorkerInfo, EntryError> {
    let mut entry: Value = serde_json::from_slice(bytes)?;
    let said = entry.as_object_mut().and_then(|fields| fields.shift_remove(SEAL));
    if said != Some(seal(&entry)?.into()) {
        return Err(EntryError::Damaged);
    }
    Ok(serde_json::from_value(entry)?)
}

fn seal(entry: &Value) -> Result<String, EntryError> {
    Ok(format!("{:016x}", xxh3_64(&serde_json::to_vec(entry)?)))
}

#[cfg(test)]
mod tests {
    use words::Role;

    use super::*;
    use crate::testing::worker;

    #[test]
    fn what_is_written_is_read() {
        let info = worker("a", Role::Decode);
        assert_eq!(read(&write(&info).unwrap()).unwrap(), info);
    }

    #[test]
    fn no_flipped_bit_makes_another_worker() {
        let (info, bytes) =
            (worker("a", Role::Prefill), write(&worker("a", Role::Prefill)).unwrap());
        for bit in 0..8 * bytes.len() {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            // One that reads the same is the same.
            assert!(read(&damaged).map_or(true, |read| read == info), "bit {bit}");
        }
    }

    #[test]
    fn a_field_of_tomorrow_is_sealed_and_passed_over() {
        let info = worker("a", Role::Decode);
        let mut entry = serde_json::to_value(&info).unwrap();
        entry["tomorrow"] = 1.into();
        let unsealed = serde_json::to_vec(&entry).unwrap();
        assert!(matches!(read(&unsealed), Err(EntryError::Damaged)));
        entry[SEAL] = seal(&entry).unwrap().into();
        assert_eq!(read(&serde_json::to_vec(&entry).unwrap()).unwrap(), info);
    }
}
