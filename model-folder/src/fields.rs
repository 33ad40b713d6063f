//! A JSON object read field by field, so that every complaint names the file and the field.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::FolderError;

/// One JSON object of a configuration file. `null` is the same as absent.
#[derive(Debug)]
pub struct Fields {
    file: PathBuf,
    /// Dotted path of this object in its file, with a trailing dot; empty at the top.
    prefix: String,
    object: Map<String, Value>,
}

// === impl Fields ===

impl Fields {
    /// Reads a file that must hold one JSON object. A byte-order mark before it, as some editors
    /// write, is passed over.
    ///
    /// # Errors
    /// [`FolderError`] if the file can't be read or holds anything else.
    pub fn read(file: &Path) -> Result<Self, FolderError> {
        let bytes = std::fs::read(file).map_err(|error| FolderError::io(file, &error))?;
        match serde_json::from_slice(without_mark(&bytes)) {
            Ok(Value::Object(object)) => {
                Ok(Self { file: file.to_owned(), prefix: String::new(), object })
            }
            Ok(_) => Err(FolderError::field(file, "*", "want a JSON object")),
            Err(error) => Err(FolderError::field(file, "*", error.to_string())),
        }
    }

    /// Reads a file that may be absent.
    ///
    /// # Errors
    /// As [`Fields::read`].
    pub fn read_if_present(file: &Path) -> Result<Option<Self>, FolderError> {
        if file.exists() { Self::read(file).map(Some) } else { Ok(None) }
    }

    /// An error about one of this object's fields.
    #[must_use]
    pub fn error(&self, field: &str, reason: impl Into<String>) -> FolderError {
        FolderError::field(&self.file, &format!("{}{field}", self.prefix), reason)
    }

    /// The field's value unless it is absent or `null`.
    #[must_use]
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.object.get(field).filter(|value| !value.is_null())
    }

    /// Whether the field is written down, be it as `null`.
    #[must_use]
    pub fn mentions(&self, field: &str) -> bool {
        self.object.contains_key(field)
    }

    /// A field that must be there.
    ///
    /// # Errors
    /// [`FolderError::Field`], naming file and field, if it is missing.
    pub fn require<T>(&self, field: &str, value: Option<T>) -> Result<T, FolderError> {
        value.ok_or_else(|| self.error(field, "is missing"))
    }

    /// An unsigned number. Whole floats count: some writers turn 4096 into 4096.0.
    ///
    /// # Errors
    /// [`FolderError::Field`], naming file and field, if it is anything else.
    pub fn u32(&self, field: &str) -> Result<Option<u32>, FolderError> {
        self.convert(field, "a whole number", whole_u32)
    }

    /// A number above zero.
    ///
    /// # Errors
    /// [`FolderError::Field`], naming file and field, if it is anything else.
    pub fn positive_u32(&self, field: &str) -> Result<Option<u32>, FolderError> {
        self.convert(field, "a whole number above 0", |value| whole_u32(value).filter(|&n| n > 0))
    }

    /// A finite number.
    ///
    /// # Errors
    /// [`FolderError::Field`], naming file and field, if it is anything else.
    pub fn f64(&self, field: &str) -> Result<Option<f64>, FolderError> {
        self.convert(field, "a number", Value::as_f64)
    }

    /// A finite number above zero.
    ///
    /// # Errors
    /// [`FolderError::Field`], naming file and field, if it is anything else.
    pub fn positive_f64(&self, field: &str) -> Result<Option<f64>, FolderError> {
        self.convert(field, "a number above 0", |value| value.as_f64().filter(|&x| x > 0.0))
    }

    /// A truth value.
    ///
    /// # Errors
    /// [`FolderError::Field`], naming file and field, if it is anything else.
    pub fn bool(&self, field: &str) -> Result<Option<bool>, FolderError> {
        self.convert(field, "true or false", Value::as_bool)
    }

    /// A string.
    ///
    /// # Errors
    /// [`FolderError::Field`], naming file and field, if it is anything else.
    pub fn str(&self, field: &str) -> Result<Option<String>, FolderError> {
        self.convert(field, "a string", |value| value.as_str().map(str::to_owned))
    }

    /// A list of strings.
    ///
    /// # Errors
    /// [`FolderError::Field`], naming file and field, if it is anything else.
    pub fn strings(&self, field: &str) -> Result<Option<Vec<String>>, FolderError> {
        self.convert(field, "a list of strings", |value| {
            value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
        })
    }

    /// Every field with its value, in the file's order.
    #[must_use]
    pub fn entries(&self) -> &Map<String, Value> {
        &self.object
    }

    /// One number, or a list of them.
    ///
    /// # Errors
    /// [`FolderError::Field`], naming file and field, if it is anything else.
    pub fn ids(&self, field: &str) -> Result<Option<Vec<u32>>, FolderError> {
        self.convert(field, "a token id or a list of them", |value| match value {
            Value::Array(items) => items.iter().map(whole_u32).collect(),
            one => whole_u32(one).map(|id| vec![id]),
        })
    }

    /// A nested object; an empty one is the same as absent.
    ///
    /// # Errors
    /// [`FolderError::Field`], naming file and field, if it is anything else.
    pub fn object(&self, field: &str) -> Result<Option<Self>, FolderError> {
        let object = self.convert(field, "an object", |value| value.as_object().cloned())?;
        Ok(object.filter(|object| !object.is_empty()).map(|object| Self {
            file: self.file.clone(),
            prefix: format!("{}{field}.", self.prefix),
            object,
        }))
    }

    fn convert<T>(
        &self,
        field: &str,
        want: &str,
        convert: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, FolderError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        match convert(value) {
            Some(converted) => Ok(Some(converted)),
            None => Err(self.error(field, format!("want {want}, got {value}"))),
        }
    }
}

/// `bytes` without the byte-order mark of UTF-8.
#[must_use]
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

fn whole_u32(value: &Value) -> Option<u32> {
    let number = value.as_f64()?;
    let fits = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
    fits.then_some(number as u32)
}
