//! The datagrams a conversation sent: collected in one flat buffer, or handed on as they leave.

use std::ffi::{c_char, c_int, c_void};
use std::ops::Range;
use std::slice;

use kcp_io::sys;

/// Datagrams in the order of the output callback.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Takes the datagrams instead while a call of [`Reference::flush_into`](crate::Reference::flush_into) runs.
    pub(crate) sink: Option<Sink>,
}

/// A closure without its type: itself, and how to call it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sink {
    closure: *mut c_void,
    call: unsafe fn(*mut c_void, &[u8]),
}

impl Sink {
    /// To be called only while `closure` is alive and nobody else uses it.
    pub(crate) fn new<F: FnMut(&[u8])>(closure: &mut F) -> Self {
        /// # Safety
        /// `closure` points to an `F` that nobody else uses.
        unsafe fn call<F: FnMut(&[u8])>(closure: *mut c_void, datagram: &[u8]) {
            // SAFETY: the caller's promise.
            let closure = unsafe { &mut *closure.cast::<F>() };
            closure(datagram);
        }
        Self { closure: std::ptr::from_mut(closure).cast(), call: call::<F> }
    }
}

impl Output {
    /// Datagrams collected.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ends.len()
    }

    /// Nothing was sent since the last clear.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The datagrams, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|index| &self.bytes[self.range(index)])
    }

    /// Forgets the datagrams and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn range(&self, index: usize) -> Range<usize> {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        start..self.ends[index]
    }
}

/// The output callback. Its result is ignored by the library.
pub(crate) unsafe extern "C" fn collect(
    buf: *const c_char,
    len: c_int,
    _kcp: *mut sys::IKCPCB,
    user: *mut c_void,
) -> c_int {
    let Ok(len) = usize::try_from(len) else { return -1 };
    // SAFETY: `user` is the `Output` that `Reference::new` gave to the library. It is owned by the `Reference` whose `&mut self`
    // method is running the library right now, so nobody else holds a reference to it.
    let output = unsafe { &mut *user.cast::<Output>() };
    // SAFETY: the library passes its own buffer with `len` bytes written, valid until this callback returns.
    let datagram = unsafe { slice::from_raw_parts(buf.cast::<u8>(), len) };
    if let Some(Sink { closure, call }) = output.sink {
        // SAFETY: `flush_into` set it, still runs, and holds the closure exclusively.
        unsafe { call(closure, datagram) };
        return 0;
    }
    output.bytes.extend_from_slice(datagram);
    output.ends.push(output.bytes.len());
    0
}
