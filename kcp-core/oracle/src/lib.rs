//! Safe wrapper over the C reference implementation of KCP, for tests and benches only.
//!
//! The C is upstream's 1.7.1 (fast-ack "conserve" on) as carried by crate `kcp-io`, with a fragment limit that
//! defaults to upstream's. Field and function names are the reference's. Outside the wrapper's guards lies what is
//! undefined in the C itself: round-trip samples of 2^28 ms and more overflow a signed integer there.

mod output;
mod state;

use std::ffi::{c_char, c_int, c_long};
use std::ptr::NonNull;

use kcp_io::sys;

pub use output::Output;
use output::Sink;
pub use state::{Segment, State};

/// One end of a conversation, run by the C library.
///
/// What it sends is collected in [`Reference::output`] until [`Output::clear`]; buffers are reused, so that
/// measuring it does not measure the wrapper.
///
/// ```
/// let mut sender = kcp_oracle::Reference::new(1);
/// let mut receiver = kcp_oracle::Reference::new(1);
/// sender.nodelay(1, 10, 2, 1);
/// assert_eq!(sender.send(b"hello"), 5);
/// sender.update(0);
/// for datagram in sender.output().iter() {
///     assert_eq!(receiver.input(datagram), 0);
/// }
/// let mut buf = [0; 16];
/// assert_eq!(receiver.recv(&mut buf), 5);
/// assert_eq!(&buf[..5], b"hello");
/// ```
#[derive(Debug)]
pub struct Reference {
    kcp: NonNull<sys::IKCPCB>,
    /// Owned; the C side holds the same pointer as its `user` and writes through it inside `ikcp_flush` only.
    output: NonNull<Output>,
}

// SAFETY: both pointers are owned by this value alone, and the library has no thread-local or shared state.
unsafe impl Send for Reference {}

impl Reference {
    /// A fresh conversation with the library's own defaults.
    ///
    /// # Panics
    /// When the C library cannot allocate.
    #[must_use]
    pub fn new(conv: u32) -> Self {
        let output = NonNull::from(Box::leak(Box::new(Output::default())));
        // SAFETY: plain constructor; `user` is only stored.
        let kcp = unsafe { sys::ikcp_create(conv, output.as_ptr().cast()) };
        let Some(kcp) = NonNull::new(kcp) else { panic!("ikcp_create is out of memory") };
        // SAFETY: `kcp` was just created; the callback has the signature the library calls.
        unsafe { sys::ikcp_setoutput(kcp.as_ptr(), output::collect) };
        Self { kcp, output }
    }

    /// Takes one datagram: 0, or -1 (too short, other conversation), -2 (bad length), -3 (bad command).
    pub fn input(&mut self, datagram: &[u8]) -> i32 {
        let size = c_long::try_from(datagram.len()).unwrap_or(c_long::MAX);
        // SAFETY: the library reads `size` bytes at `data` and keeps no pointer.
        unsafe { sys::ikcp_input(self.kcp.as_ptr(), datagram.as_ptr().cast(), size) }
    }

    /// Advances the clock and flushes when the interval has passed.
    pub fn update(&mut self, now: u32) {
        // SAFETY: the output callback writes to `self.output`, to which no reference is alive during this `&mut self` call.
        unsafe { sys::ikcp_update(self.kcp.as_ptr(), now) }
    }

    /// When the next update would be due.
    #[must_use]
    pub fn check(&self, now: u32) -> u32 {
        // SAFETY: reads the control block only.
        unsafe { sys::ikcp_check(self.kcp.as_ptr(), now) }
    }

    /// Flushes at the time of the last update; does nothing before the first.
    pub fn flush(&mut self) {
        // SAFETY: as for `update`.
        unsafe { sys::ikcp_flush(self.kcp.as_ptr()) }
    }

    /// Flushes as [`Reference::flush`] does and gives each datagram to `sink` as it leaves, instead of collecting it.
    pub fn flush_into(&mut self, mut sink: impl FnMut(&[u8])) {
        self.output_mut().sink = Some(Sink::new(&mut sink));
        self.flush();
        self.output_mut().sink = None;
    }

    /// Queues a message: bytes queued, or -2 (too long).
    pub fn send(&mut self, message: &[u8]) -> i32 {
        // SAFETY: the library copies `len` bytes out of `message`.
        unsafe { sys::ikcp_send(self.kcp.as_ptr(), message.as_ptr().cast(), int(message.len())) }
    }

    /// Takes the next message: its length, or -1 (none), -2 (incomplete), -3 (buffer too small).
    pub fn recv(&mut self, buf: &mut [u8]) -> i32 {
        let (at, len) = (buf.as_mut_ptr().cast::<c_char>(), int(buf.len()));
        // SAFETY: the library writes at most `len` bytes to `buf`, having compared the message's size with it.
        unsafe { sys::ikcp_recv(self.kcp.as_ptr(), at, len) }
    }

    /// Copies the next message and leaves it queued; answers as [`Reference::recv`] does.
    ///
    /// The library is told to peek by a negative length, and 0 has none: with an empty `buf` an empty message is taken.
    pub fn peek(&mut self, buf: &mut [u8]) -> i32 {
        let (at, len) = (buf.as_mut_ptr().cast::<c_char>(), int(buf.len()));
        // SAFETY: as for `recv`; the negative length selects peeking.
        unsafe { sys::ikcp_recv(self.kcp.as_ptr(), at, -len) }
    }

    /// Size of the next whole message, or -1.
    #[must_use]
    pub fn peek_size(&self) -> i32 {
        // SAFETY: reads the control block and its queues only.
        unsafe { sys::ikcp_peeksize(self.kcp.as_ptr()) }
    }

    /// Segments queued or in flight.
    #[must_use]
    pub fn wait_snd(&self) -> i32 {
        // SAFETY: reads the control block only.
        unsafe { sys::ikcp_waitsnd(self.kcp.as_ptr()) }
    }

    /// Sets the mtu: 0, or -1 when it is below 50.
    ///
    /// # Panics
    /// When a queued segment is so much larger that the C would write past its output buffer.
    pub fn set_mtu(&mut self, mtu: i32) -> i32 {
        if let Ok(mtu) = usize::try_from(mtu) {
            let room = (mtu + HEADER_LEN) * 3;
            let longest = self.longest_queued();
            assert!(
                HEADER_LEN + longest <= room,
                "mtu {mtu} with {longest} bytes queued overruns the C's buffer"
            );
        }
        // SAFETY: replaces the output buffer, whose size was checked against what is queued.
        unsafe { sys::ikcp_setmtu(self.kcp.as_ptr(), mtu) }
    }

    /// Sets what is not negative: mode, interval, fast resend, and whether to ignore the congestion window.
    pub fn nodelay(&mut self, nodelay: i32, interval: i32, resend: i32, nc: i32) {
        // SAFETY: writes fields of the control block only.
        unsafe { sys::ikcp_nodelay(self.kcp.as_ptr(), nodelay, interval, resend, nc) };
    }

    /// Sets what is positive; the receive window is at least 128.
    pub fn wndsize(&mut self, snd: i32, rcv: i32) {
        // SAFETY: writes fields of the control block only.
        unsafe { sys::ikcp_wndsize(self.kcp.as_ptr(), snd, rcv) };
    }

    /// Pokes `current`: the clock by which the next input measures and the next flush sends. Unlike an update it flushes
    /// nothing.
    pub fn set_current(&mut self, now: u32) {
        self.block_mut().current = now;
    }

    /// Pokes `stream`: bytes instead of messages.
    pub fn set_stream(&mut self, stream: bool) {
        self.block_mut().stream = c_int::from(stream);
    }

    /// Pokes `fastlimit`: transmissions up to which fast resend applies; 0 and less = always.
    pub fn set_fastlimit(&mut self, fastlimit: i32) {
        self.block_mut().fastlimit = fastlimit;
    }

    /// Pokes `dead_link`: transmissions after which the link counts as dead.
    pub fn set_dead_link(&mut self, dead_link: u32) {
        self.block_mut().dead_link = dead_link;
    }

    /// Pokes `rcv_wnd` past the setter's floor of 128.
    pub fn set_rcv_wnd(&mut self, rcv_wnd: u32) {
        self.block_mut().rcv_wnd = rcv_wnd;
    }

    /// Pokes the numbering of a fresh conversation: the first number sent, and the first expected.
    ///
    /// # Panics
    /// When something was sent, queued or received already.
    pub fn set_sequence(&mut self, snd_nxt: u32, rcv_nxt: u32) {
        let state = self.state();
        let queued = state.nsnd_buf + state.nsnd_que + state.nrcv_buf + state.nrcv_que;
        assert_eq!(queued + state.ackcount, 0, "the conversation has begun");
        let block = self.block_mut();
        block.snd_una = snd_nxt;
        block.snd_nxt = snd_nxt;
        block.rcv_nxt = rcv_nxt;
    }

    /// A copy of every field.
    #[must_use]
    pub fn state(&self) -> State {
        State::of(self.block())
    }

    /// The segments in flight (`snd_buf`), oldest first.
    pub fn in_flight(&self) -> impl Iterator<Item = Segment> {
        state::walk(&self.block().snd_buf)
    }

    /// What was sent and not cleared yet.
    #[must_use]
    pub fn output(&self) -> &Output {
        // SAFETY: owned by this value; the C side writes only while a `&mut self` call runs.
        unsafe { self.output.as_ref() }
    }

    /// What was sent, to be cleared.
    pub fn output_mut(&mut self) -> &mut Output {
        // SAFETY: owned by this value, borrowed mutably with it.
        unsafe { self.output.as_mut() }
    }

    fn longest_queued(&self) -> usize {
        let block = self.block();
        let queued = state::walk(&block.snd_queue).chain(state::walk(&block.snd_buf));
        queued.map(|segment| segment.len as usize).max().unwrap_or(0)
    }

    fn block(&self) -> &sys::IKCPCB {
        // SAFETY: valid from `ikcp_create` until `drop`; the C side changes it only while a `&mut self` call runs.
        unsafe { self.kcp.as_ref() }
    }

    fn block_mut(&mut self) -> &mut sys::IKCPCB {
        // SAFETY: as above, borrowed mutably with `self`.
        unsafe { self.kcp.as_mut() }
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        // SAFETY: both were made in `new` and are used by nobody afterwards; the library frees its own queues.
        unsafe {
            sys::ikcp_release(self.kcp.as_ptr());
            drop(Box::from_raw(self.output.as_ptr()));
        }
    }
}

/// The library's sizes are `int`: of more it is told of that much.
fn int(len: usize) -> c_int {
    c_int::try_from(len).unwrap_or(c_int::MAX)
}

const HEADER_LEN: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_gets_what_would_be_collected() {
        let sent = || {
            let mut kcp = Reference::new(1);
            kcp.nodelay(1, 10, 2, 1);
            kcp.update(0);
            assert_eq!(kcp.send(&[7; 3000]), 3000);
            kcp.set_current(5);
            kcp
        };
        let mut collecting = sent();
        collecting.flush();
        let collected: Vec<Vec<u8>> = collecting.output().iter().map(<[u8]>::to_vec).collect();
        let mut given = Vec::new();
        let mut giving = sent();
        giving.flush_into(|datagram| given.push(datagram.to_vec()));
        assert_eq!(given, collected);
        assert_eq!((given.len(), giving.output().len()), (3, 0));
        assert_eq!(giving.state().current, 5);
        giving.update(1000);
        assert_eq!(giving.output().len(), 3, "collected again once the call is over");
    }
}
