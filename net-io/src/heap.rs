//! How the allocator of the process gives large pieces of memory back.

use crate::sys;

/// From now on every piece of 256 KiB or more is mapped by itself, and so goes back to the system as soon as it is freed.
///
/// glibc begins like that, but with each such piece that is freed it raises the limit to its size, up to 32 MiB, and takes the next ones
/// from a heap that shrinks at its end only: a gateway whose million sessions had ended kept two thirds of its memory. Smaller
/// pieces stay with the heap, for a piece mapped costs two system calls and a page fault for every 4 KiB. Other C libraries
/// are left as they are.
pub fn return_large_pieces() {
    sys::set_mmap_threshold(LARGE);
}

/// In bytes. Sessions come and go in pieces of more; messages, with the usual mtu, are shorter.
const LARGE: i32 = 256 << 10;
