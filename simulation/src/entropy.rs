//! What a process asks of the system beside memory: randomness, which comes of a seed here, and the
//! time, which stands still.
//!
//! Hash maps, tokio's `select!` and every new id draw on the system's entropy, and HTTP servers date
//! their answers, which would make each run its own. A process that holds a simulation has another source:
//! a sequence that follows from its seed, and one moment. So one process runs one seed, once.

#![allow(unsafe_code, reason = "takes the place of functions of libc")]

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// The moment at which a simulation stands, in seconds since 1970.
const MOMENT_S: libc::time_t = 1_800_000_000;

type SystemCall = unsafe extern "C" fn(
    libc::c_long,
    libc::c_long,
    libc::c_long,
    libc::c_long,
    libc::c_long,
    libc::c_long,
    libc::c_long,
) -> libc::c_long;

static IS_SEEDED: AtomicBool = AtomicBool::new(false);
static STATE: AtomicU64 = AtomicU64::new(0);

/// Begins the sequence that belongs to `seed`, and stops the time. Before anything else that wants
/// randomness.
pub fn seed(seed: u64) {
    STATE.store(seed, Ordering::SeqCst);
    IS_SEEDED.store(true, Ordering::SeqCst);
}

/// Fills a buffer, as libc's function of this name does, which it stands in for.
///
/// # Safety
/// As there: `buffer` has room for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    for at in 0..length {
        // SAFETY: whoever calls owns the buffer and has room for `length` bytes in it.
        unsafe { buffer.add(at).write(next() as u8) };
    }
    length as isize
}

/// Calls the kernel, as libc's function of this name does, which it stands in for: some ask for randomness
/// this way.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall(
    number: libc::c_long,
    first: libc::c_long,
    second: libc::c_long,
    third: libc::c_long,
    fourth: libc::c_long,
    fifth: libc::c_long,
    sixth: libc::c_long,
) -> libc::c_long {
    if number == libc::SYS_getrandom {
        // SAFETY: what that call takes: a buffer and its length.
        return unsafe { getrandom(first as *mut u8, second as usize, 0) as libc::c_long };
    }
    // SAFETY: the function that this one stands in front of, with what its caller gave; it takes no more.
    unsafe { system_call()(number, first, second, third, fourth, fifth, sixth) }
}

/// libc's own `syscall`.
fn system_call() -> SystemCall {
    static FOUND: AtomicUsize = AtomicUsize::new(0);
    let mut found = FOUND.load(Ordering::Relaxed);
    if found == 0 {
        // SAFETY: a name that ends with a zero.
        found = unsafe { libc::dlsym(libc::RTLD_NEXT, c"syscall".as_ptr()) } as usize;
        assert!(found != 0, "a libc without syscall");
        FOUND.store(found, Ordering::Relaxed);
    }
    // SAFETY: that is what this name stands for.
    unsafe { std::mem::transmute::<usize, SystemCall>(found) }
}

/// Tells the time, as libc's function of this name does, which it stands in for.
///
/// # Safety
/// As there: `into` has room for the answer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(
    clock: libc::clockid_t,
    into: *mut libc::timespec,
) -> libc::c_int {
    if !IS_SEEDED.load(Ordering::SeqCst) {
        // SAFETY: the system's own call, with what its caller gave.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, into) as libc::c_int };
    }
    // SAFETY: whoever calls owns the answer's place.
    unsafe { into.write(libc::timespec { tv_sec: MOMENT_S, tv_nsec: 0 }) };
    0
}

/// One step of SplitMix64.
fn next() -> u64 {
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut mixed = STATE.fetch_add(STEP, Ordering::SeqCst).wrapping_add(STEP);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
