//! The process of a pod's sandbox: it holds the network namespace open, uses no CPU, and ends with 0 at SIGTERM or SIGINT.
//!
//! It is compiled by itself (`build.rs`), without the standard library or libc, so that the image is one static file of about a kilobyte. The
//! signals are blocked and waited for instead of handled: the kernel drops a signal that process 1 of a namespace leaves at its default,
//! but never a blocked one, and without handlers there is no return trampoline to get right.
#![no_std]
#![no_main]

use core::arch::asm;
use core::panic::PanicInfo;

const SIG_BLOCK: usize = 0;
const SIGINT: u64 = 2;
const SIGTERM: u64 = 15;
/// The kernel's signal set has a bit for each signal, the first for signal 1.
static END: u64 = 1 << (SIGINT - 1) | 1 << (SIGTERM - 1);

#[cfg(target_arch = "x86_64")]
mod call {
    pub const SIGPROCMASK: usize = 14;
    pub const SIGTIMEDWAIT: usize = 128;
    pub const EXIT_GROUP: usize = 231;
}

#[cfg(target_arch = "aarch64")]
mod call {
    pub const SIGPROCMASK: usize = 135;
    pub const SIGTIMEDWAIT: usize = 137;
    pub const EXIT_GROUP: usize = 94;
}

#[cfg(target_arch = "x86_64")]
fn syscall(number: usize, arguments: [usize; 4]) -> isize {
    let result;
    // SAFETY: the three calls of this program read only END or nothing; rcx and r11 are what `syscall` overwrites.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") arguments[0], in("rsi") arguments[1], in("rdx") arguments[2],
            in("r10") arguments[3], lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

#[cfg(target_arch = "aarch64")]
fn syscall(number: usize, arguments: [usize; 4]) -> isize {
    let result;
    // SAFETY: the three calls of this program read only END or nothing.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") arguments[0] => result, in("x1") arguments[1], in("x2") arguments[2],
            in("x3") arguments[3], options(nostack));
    }
    result
}

/// Where the kernel begins.
#[unsafe(no_mangle)]
pub extern "C" fn _start() -> ! {
    let end = &raw const END as usize;
    syscall(call::SIGPROCMASK, [SIG_BLOCK, end, 0, size_of::<u64>()]);
    // Negative is an interruption (a stop and continue, a tracer): wait again.
    while syscall(call::SIGTIMEDWAIT, [end, 0, 0, size_of::<u64>()]) < 0 {}
    exit(0)
}

fn exit(code: usize) -> ! {
    loop {
        syscall(call::EXIT_GROUP, [code, 0, 0, 0]);
    }
}

#[panic_handler]
fn panic(_: &PanicInfo) -> ! {
    exit(1)
}
