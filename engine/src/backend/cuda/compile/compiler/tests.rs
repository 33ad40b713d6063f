use super::*;

#[test]
fn defines_become_options_in_one_order() {
    let defines = Defines::new().with("WIDTH", 128).flag("ELEMENT_F16").with("EPS", 1e-5);
    let got: Vec<_> = defines.options().collect();
    assert_eq!(got, ["-DELEMENT_F16", "-DEPS=0.00001", "-DWIDTH=128"]);
}

#[test]
fn a_key_changes_with_everything_it_stands_for() {
    let options = ["-DA".to_owned()];
    let base = Unit { name: "a.cu", source: "x", headers: &[("h", "y")], options: &options };
    let keys = [
        key(&base),
        key(&Unit { name: "b.cu", ..base }),
        key(&Unit { source: "z", ..base }),
        key(&Unit { headers: &[("h", "z")], ..base }),
        key(&Unit { headers: &[("g", "y")], ..base }),
        key(&Unit { options: &[], ..base }),
    ];
    let distinct: std::collections::HashSet<_> = keys.iter().collect();
    assert_eq!(distinct.len(), keys.len());
    assert_eq!(key(&base), keys[0]);
}

#[test]
fn a_damaged_entry_is_no_entry() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("deep/kernel.cubin");
    assert_eq!(read_cached(&file), None);
    let kept = Kept { version: (13, 1), cubin: b"machine code".to_vec() };
    write_cached(&file, &kept).unwrap();
    assert_eq!(read_cached(&file), Some(kept));
    let whole = fs::read(&file).unwrap();
    for damaged in [&whole[..whole.len() - 1], &whole[..20], b"", b"something else entirely"] {
        fs::write(&file, damaged).unwrap();
        assert_eq!(read_cached(&file), None, "{} bytes", damaged.len());
    }
    let left = fs::read_dir(file.parent().unwrap()).unwrap().count();
    assert_eq!(left, 1, "nothing partial is left behind");
}
