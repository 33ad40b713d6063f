//! Throw-away: upload from a mapped file; compile times.
#![allow(missing_docs, unsafe_code)]
use engine::backend::cuda::{device::Device, memory::DeviceMemory, upload::Uploader, tensor_map::ElementType, compiler::*, sources::*};
use engine::config::WeightDtype;
use std::time::Instant;
fn main() {
    let file = std::env::args().nth(1).unwrap();
    let t = Instant::now();
    let device = Device::open(0, &[]).unwrap();
    println!("open device {:?}", t.elapsed());
    let t = Instant::now();
    device.libraries().cublaslt().unwrap();
    println!("cublasLt found {:?}", t.elapsed());
    let t = Instant::now();
    let nvrtc = device.libraries().nvrtc().unwrap();
    println!("nvrtc found {:?}", t.elapsed());
    for line in std::fs::read_to_string("/proc/self/maps").unwrap().lines().filter(|l| l.contains("r-xp") && (l.contains("nvrtc") || l.contains("cublas") || l.contains("libcuda"))) { println!("  {}", line.split_whitespace().last().unwrap()); }
    let defs = |v: &Variant| v.defines.iter().fold(Defines::new(), |d, s| match s.split_once('=') { Some((a, b)) => d.with(a, b), None => d.flag(s) });
    let picked: Vec<&Variant> = VARIANTS.iter().collect();
    let t = Instant::now();
    for v in &picked { let t = Instant::now(); let ok = compile(nvrtc, v.file, &defs(v), "sm_90a", &[]).is_ok(); println!("  {} {:?} {ok} {:?}", v.file, v.defines, t.elapsed()); }
    println!("{} compiled in turn {:?}", picked.len(), t.elapsed());
    let cache = std::env::temp_dir().join("kernels-smoke");
    for _ in 0..2 {
        let t = Instant::now();
        let compiler = Compiler::new(&device, Some(cache.clone())).unwrap();
        let units: Vec<_> = picked.iter().map(|v| (v.file, defs(v))).collect();
        let r = compiler.modules(&units);
        println!("{} at once {:?} {:?}", picked.len(), t.elapsed(), r.err());
    }
    let t = Instant::now();
    let mut up = Uploader::new(&device).unwrap();
    println!("uploader made {:?}", t.elapsed());
    for (pass, name) in ["mapped", "again", "willneed", "populated", "f32->bf16", "f16->bf16"].iter().enumerate() {
        let f = std::fs::File::open(&file).unwrap();
        let map = unsafe { memmap2::Mmap::map(&f).unwrap() };
        let out = DeviceMemory::new(&device, map.len()).unwrap();
        let t = Instant::now();
        if pass == 2 { map.advise(memmap2::Advice::WillNeed).unwrap(); }
        if pass == 3 { map.advise(memmap2::Advice::PopulateRead).unwrap(); }
        let dtype = [WeightDtype::Bf16, WeightDtype::Bf16, WeightDtype::Bf16, WeightDtype::Bf16, WeightDtype::F32, WeightDtype::F16][pass];
        for (i, part) in map.chunks(58720256).enumerate() { up.copy(out.address() + (i * 58720256) as u64, ElementType::Bf16, dtype, part).unwrap(); }
        up.finish().unwrap();
        println!("upload {name}: {:.2} GB/s of the file", map.len() as f64 / t.elapsed().as_secs_f64() / 1e9);
    }
}
