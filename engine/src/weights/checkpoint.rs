//! A checkpoint's safetensors files: one `model.safetensors`, or many with an index.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use model_folder::{Fields, FolderError};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, Metadata, SafeTensorError, TensorInfo};
use serde_json::Value;

use super::{StoredTensor, Tensor, TensorData, WeightDtype, mapped, rows_and_cols};
use crate::error::EngineError;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// What dense numbers may be.
const FLOATS: [Dtype; 3] = [Dtype::BF16, Dtype::F16, Dtype::F32];

/// Bytes before a safetensors header: its length.
const HEADER_LENGTH_BYTES: usize = 8;

/// All files of a checkpoint, mapped.
#[derive(Debug)]
pub(super) struct Checkpoint {
    dir: PathBuf,
    shards: Vec<Shard>,
    /// Which shard holds a tensor.
    index: BTreeMap<String, usize>,
}

/// One mapped file.
#[derive(Debug)]
struct Shard {
    file: PathBuf,
    map: Mmap,
    metadata: Metadata,
    /// Where tensor data begins in the file.
    data_start: usize,
}

// === impl Checkpoint ===

impl Checkpoint {
    /// Maps the files of the checkpoint in `dir`.
    pub(super) fn open(dir: &Path) -> Result<Self, EngineError> {
        let (single, index) = (dir.join(SINGLE), dir.join(INDEX));
        if single.exists() {
            Self::from_files(dir, vec![single])
        } else if index.exists() {
            Self::from_index(dir, &index)
        } else {
            Err(EngineError::weights(
                dir,
                "*",
                format!("no {SINGLE} and no {INDEX} in this folder: it has to hold the weights"),
            ))
        }
    }

    /// Whether there is a tensor of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// The dense tensor of this name, which must have this shape.
    pub(super) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor<'_>, EngineError> {
        let stored = self.stored(name, &FLOATS, shape)?;
        Ok(stored.dense().expect("it is of `FLOATS`"))
    }

    /// The tensor of this name, which must have one of these types and this shape.
    pub(super) fn stored(
        &self,
        name: &str,
        types: &[Dtype],
        shape: &[usize],
    ) -> Result<StoredTensor<'_>, EngineError> {
        self.shard_of(name)?.stored(name, types, shape)
    }

    /// The element type of a dense tensor.
    pub(super) fn dtype(&self, name: &str) -> Result<WeightDtype, EngineError> {
        self.shard_of(name)?.dtype(name, &FLOATS).map(float)
    }

    /// Whether both tensors are there, and not the same; reads no further than the first difference.
    pub(super) fn differ(&self, one: &str, other: &str) -> Result<bool, EngineError> {
        if ![one, other].iter().all(|name| self.has(name)) {
            return Ok(false);
        }
        let raw = |name: &str| self.shard_of(name)?.raw(name);
        Ok(raw(one)? != raw(other)?)
    }

    fn shard_of(&self, name: &str) -> Result<&Shard, EngineError> {
        let holder = match &self.shards[..] {
            [only] => &only.file,
            _ => &self.dir,
        };
        let shard = self.index.get(name).map(|&shard| &self.shards[shard]);
        shard.ok_or_else(|| EngineError::weights(holder, name, "is missing"))
    }

    fn from_files(dir: &Path, files: Vec<PathBuf>) -> Result<Self, EngineError> {
        let shards = files.into_iter().map(Shard::open).collect::<Result<Vec<_>, _>>()?;
        let mut index = BTreeMap::new();
        for (number, shard) in shards.iter().enumerate() {
            for name in shard.metadata.offset_keys() {
                if let Some(other) = index.insert(name.clone(), number) {
                    let reason = format!("is in {}, too", shards[other].file.display());
                    return Err(EngineError::weights(&shard.file, &name, reason));
                }
            }
        }
        Ok(Self { dir: dir.to_owned(), shards, index })
    }

    fn from_index(dir: &Path, index: &Path) -> Result<Self, EngineError> {
        let fields = Fields::read(index)?;
        let weight_map = fields.require("weight_map", fields.object("weight_map")?)?;
        let mut names = weight_map
            .entries()
            .iter()
            .map(|(tensor, file)| shard_name(&weight_map, tensor, file))
            .collect::<Result<Vec<_>, _>>()?;
        names.sort();
        names.dedup();
        Self::from_files(dir, names.iter().map(|name| dir.join(name)).collect())
    }
}

/// A shard's file name; it may not lead out of the checkpoint's folder.
fn shard_name(weight_map: &Fields, tensor: &str, file: &Value) -> Result<String, FolderError> {
    match file.as_str() {
        Some(name) if !name.contains(['/', '\\']) && name != ".." => Ok(name.to_owned()),
        _ => {
            Err(weight_map
                .error(tensor, format!("want the name of a file in this folder, got {file}")))
        }
    }
}

// === impl Shard ===

impl Shard {
    fn open(file: PathBuf) -> Result<Self, EngineError> {
        let map = mapped::map(&file)?;
        let (header_bytes, metadata) =
            SafeTensors::read_metadata(&map).map_err(|error| damaged(&file, &map, &error))?;
        let data_start = HEADER_LENGTH_BYTES + header_bytes;
        Ok(Self { file, map, metadata, data_start })
    }

    fn stored(
        &self,
        name: &str,
        types: &[Dtype],
        shape: &[usize],
    ) -> Result<StoredTensor<'_>, EngineError> {
        let info = self.info(name)?;
        if info.shape != shape {
            let is = &info.shape;
            let reason = format!("has shape {is:?} where the configuration says {shape:?}");
            return Err(EngineError::weights(&self.file, name, reason));
        }
        let (dtype, bytes) = (self.dtype(name, types)?, self.bytes(info));
        let (rows, cols) = rows_and_cols(shape);
        let data = TensorData::Stored(bytes);
        Ok(StoredTensor { dtype, rows, cols, data, bytes: bytes.len() as u64 })
    }

    /// A tensor as it lies in the file: type, shape, bytes.
    fn raw(&self, name: &str) -> Result<(Dtype, &[usize], &[u8]), EngineError> {
        let info = self.info(name)?;
        Ok((info.dtype, &info.shape, self.bytes(info)))
    }

    fn bytes(&self, info: &TensorInfo) -> &[u8] {
        let (start, end) = info.data_offsets;
        &self.map[self.data_start + start..self.data_start + end]
    }

    fn info(&self, name: &str) -> Result<&TensorInfo, EngineError> {
        let info = self.metadata.info(name);
        info.ok_or_else(|| EngineError::weights(&self.file, name, "is missing"))
    }

    fn dtype(&self, name: &str, types: &[Dtype]) -> Result<Dtype, EngineError> {
        let dtype = self.info(name)?.dtype;
        if types.contains(&dtype) {
            return Ok(dtype);
        }
        let wanted: Vec<_> = types.iter().map(Dtype::to_string).collect();
        let reason = format!("has dtype {dtype}: want {}", wanted.join(" or "));
        Err(EngineError::weights(&self.file, name, reason))
    }
}

fn float(dtype: Dtype) -> WeightDtype {
    WeightDtype::of(dtype).expect("one of `FLOATS`")
}

/// What a clone without Git LFS has in a file's place.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Says what is wrong with a file; for one that was cut short, which tensor it ends in.
fn damaged(file: &Path, bytes: &[u8], error: &SafeTensorError) -> EngineError {
    match (error, first_cut_tensor(bytes)) {
        (SafeTensorError::MetadataIncompleteBuffer, Some(tensor)) => EngineError::weights(
            file,
            &tensor,
            format!(
                "lies beyond the file's end at {} bytes: the file is truncated: copy or download it again",
                bytes.len()
            ),
        ),
        _ if bytes.starts_with(LFS_POINTER) => EngineError::weights(
            file,
            "*",
            "is a pointer of Git LFS, not the file: `git lfs pull` in its repository gets it"
                .to_owned(),
        ),
        _ => EngineError::weights(
            file,
            "*",
            format!("is no valid safetensors file: {error}: copy or download it again"),
        ),
    }
}

fn first_cut_tensor(bytes: &[u8]) -> Option<String> {
    let (length, rest) = bytes.split_first_chunk::<HEADER_LENGTH_BYTES>()?;
    let header_bytes = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (header, data) = rest.split_at_checked(header_bytes)?;
    let header: BTreeMap<String, Value> = serde_json::from_slice(header).ok()?;
    header
        .into_iter()
        .filter_map(|(name, info)| Some((info["data_offsets"][1].as_u64()?, name)))
        .filter(|(end, _)| *end > data.len() as u64)
        .min()
        .map(|(_, name)| name)
}
