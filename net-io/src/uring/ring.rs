//! The ring itself: entries pushed, buffers lent to the kernel and taken back, the one system call of a turn.
//!
//! Every pointer the kernel gets comes from here. It keeps three kinds of memory: receive buffers (from publishing until the
//! completion that names them), headers of receives and the waker's counter (for the ring's life), and what a send points to
//! (until the enter that consumed its entry returns, see [`Ring::turn`]). Streams add a second ring of buffers and nothing of
//! their own: what waits on a stream in the kernel points to no memory.

use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{BufRingEntry, CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode};
use libc::msghdr;

use super::op::{Group, Op};
use crate::addr::NAME_LEN_MAX;
use crate::stream::Pieces;
use crate::sys::{Fixed, IoVec, Message, Plain, SendTable};

/// Sizes of a ring, in entries.
#[derive(Clone, Copy, Debug)]
pub(super) struct RingSizes {
    pub(super) submissions: u32,
    pub(super) completions: u32,
    /// A power of two up to 32,768.
    pub(super) buffers: u16,
    /// Bytes of one receive buffer.
    pub(super) buffer_len: u32,
    /// Control bytes of a receive: of a socket bound to an address, and of a wildcard's.
    pub(super) control_lens: [usize; 2],
}

/// What an enter does besides submitting.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wait {
    /// Nothing.
    Submit,
    /// Lets the kernel post what has arrived.
    Poll,
    /// Waits for `want` completions, or for one once `min_wait_us` are over, or for `timeout`.
    Until { want: u16, min_wait_us: u32, timeout: Option<Duration> },
}

/// One send and the operation its failure will name.
#[derive(Debug)]
pub(super) struct Send<'a> {
    pub(super) fd: BorrowedFd<'a>,
    pub(super) message: Message<'a>,
    pub(super) op: Op,
}

/// What a stream sends, and the operation that tells when the kernel did not take all of it.
#[derive(Debug)]
pub(super) struct StreamSend<'a> {
    pub(super) fd: BorrowedFd<'a>,
    pub(super) pieces: Pieces<'a>,
    pub(super) op: Op,
}

/// A receive buffer that is ours until it is given back.
#[derive(Debug)]
pub(super) struct Buffer(u16);

/// Likewise one for a stream's read.
#[derive(Debug)]
pub(super) struct StreamBuffer(u16);

/// What the kernel has put something into.
#[derive(Debug)]
pub(super) enum Filled {
    Nothing,
    Buffer(Buffer),
    StreamBuffer(StreamBuffer),
}

/// One completion.
#[derive(Debug)]
pub(super) struct Completion {
    pub(super) op: Op,
    /// Bytes, or the errno.
    pub(super) result: Result<u32, i32>,
    /// The operation goes on.
    pub(super) more: bool,
    /// The stream's socket had more than the read took.
    pub(super) has_more: bool,
    pub(super) filled: Filled,
}

/// An io_uring and all memory it may touch.
pub(super) struct Ring {
    io: ManuallyDrop<IoUring>,
    memory: ManuallyDrop<Memory>,
    /// An enter failed with entries still in the queue that point to memory no longer ours: no enter may follow.
    dead: bool,
    /// See [`Ring::has_more_work`].
    more_work: bool,
    pub(super) enters: u64,
}

struct Memory {
    datagrams: BufferRing,
    streams: Option<StreamMemory>,
    sends: SendTable,
    /// Receive headers: of sockets bound to an address, and of wildcards.
    headers: Fixed<msghdr>,
    wake: Fixed<u8>,
}

/// Buffers for the kernel to choose from, and the ring that says which are there.
struct BufferRing {
    entries: Fixed<BufEntry>,
    /// How far we have filled it.
    tail: u16,
    pool: Fixed<u8>,
    buffer_len: u32,
}

/// What streams need.
struct StreamMemory {
    buffers: BufferRing,
    /// What sends of more than one piece point to, from the first free one on.
    headers: Fixed<msghdr>,
    iovecs: Fixed<IoVec>,
    headers_used: usize,
    iovecs_used: usize,
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct BufEntry([u64; 2]);
// SAFETY: integers.
unsafe impl Plain for BufEntry {}

impl Ring {
    /// Sets the ring up for the calling thread, which alone may use it.
    pub(super) fn new(sizes: RingSizes) -> io::Result<Self> {
        let io = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(sizes.completions)
            .build(sizes.submissions)?;
        let memory = Memory {
            datagrams: BufferRing::new(sizes.buffers, sizes.buffer_len)?,
            streams: None,
            sends: SendTable::new(io.params().sq_entries() as usize)?,
            headers: Fixed::new(2)?,
            wake: Fixed::new(COUNTER_LEN as usize)?,
        };
        memory.write_headers(sizes.control_lens);
        let (memory, io) = (ManuallyDrop::new(memory), ManuallyDrop::new(io));
        let mut ring = Self { io, memory, dead: false, more_work: false, enters: 0 };
        ring.offer_buffers(Group::Datagrams, sizes.buffers)?;
        Ok(ring)
    }

    /// Makes the ring fit for streams, with this many buffers of this size for their reads.
    pub(super) fn add_streams(&mut self, buffers: u16, buffer_len: u32) -> io::Result<()> {
        self.memory.streams = Some(StreamMemory {
            buffers: BufferRing::new(buffers, buffer_len)?,
            headers: Fixed::new(GATHERS_MAX)?,
            iovecs: Fixed::new(PIECES_MAX)?,
            headers_used: 0,
            iovecs_used: 0,
        });
        self.offer_buffers(Group::Streams, buffers)
    }

    /// Gives the kernel all buffers of a group.
    fn offer_buffers(&mut self, group: Group, count: u16) -> io::Result<()> {
        let buffers = match group {
            Group::Datagrams => &mut self.memory.datagrams,
            Group::Streams => &mut self.memory.streams_mut().buffers,
        };
        for id in 0..count {
            buffers.give_back(id);
        }
        buffers.publish();
        let base = buffers.entries.at(0).addr() as u64;
        // SAFETY: the entries are page-aligned, `count` long, and outlive the ring (see `drop`).
        unsafe { self.io.submitter().register_buf_ring_with_flags(base, count, group as u16, 0) }
    }

    /// Whether the kernel can gather completions for a minimum time (6.12).
    pub(super) fn has_min_wait(&self) -> bool {
        self.io.params().is_feature_min_timeout()
    }

    /// Entries of the submission queue, and the sends one turn can take.
    pub(super) fn submissions(&self) -> usize {
        self.memory.sends.len()
    }

    /// Arms the receive of a socket, with the control messages that a wildcard's or another's has.
    pub(super) fn receive(&mut self, fd: BorrowedFd<'_>, wildcard: bool, op: Op) -> io::Result<()> {
        let header = self.memory.headers.at(usize::from(wildcard));
        let entry =
            opcode::RecvMsgMulti::new(Fd(fd.as_raw_fd()), header, Group::Datagrams as u16).build();
        self.push(&entry.user_data(op.encode()))
    }

    /// Arms the read that a waker's write ends.
    pub(super) fn watch(&mut self, event: BorrowedFd<'_>, op: Op) -> io::Result<()> {
        let counter = self.memory.wake.at(0);
        let entry = opcode::Read::new(Fd(event.as_raw_fd()), counter, COUNTER_LEN).build();
        self.push(&entry.user_data(op.encode()))
    }

    /// Arms one receive of a stream, which takes a buffer when there is something to put into it. Unless the stream `has_more`, it
    /// looks first whether there is, which spares it a receive that finds nothing.
    pub(super) fn stream_read(
        &mut self,
        fd: BorrowedFd<'_>,
        has_more: bool,
        op: Op,
    ) -> io::Result<()> {
        let entry = opcode::Recv::new(Fd(fd.as_raw_fd()), std::ptr::null_mut(), 0)
            .ioprio(if has_more { 0 } else { POLL_FIRST })
            .buf_group(Group::Streams as u16)
            .build();
        self.push(&entry.flags(Flags::BUFFER_SELECT).user_data(op.encode()))
    }

    /// Waits until a stream can be written to.
    pub(super) fn stream_ready(&mut self, fd: BorrowedFd<'_>, op: Op) -> io::Result<()> {
        let writable = u32::from(libc::POLLOUT.cast_unsigned());
        let entry = opcode::PollAdd::new(Fd(fd.as_raw_fd()), writable).build();
        self.push(&entry.user_data(op.encode()))
    }

    /// Ends another operation, if it is still there.
    pub(super) fn cancel(&mut self, op: Op) -> io::Result<()> {
        let entry = opcode::AsyncCancel::new(op.encode()).build();
        self.push(&entry.flags(Flags::SKIP_SUCCESS).user_data(Op::Cancel.encode()))
    }

    /// Submits what is queued, `sends` and `streams`, waits as told, and returns when the kernel has no more need of what they borrow.
    ///
    /// A send is finished when the enter that consumed its entry returns: MSG_DONTWAIT makes the kernel fail it rather than keep
    /// it, and no flag here hands it to a worker thread. So an empty submission queue means that all of them are done. That no
    /// completion names a stream's send means that all of it was taken, once [`has_overflow`](Ring::has_overflow) is false.
    ///
    /// # Errors
    /// The enter's. The ring cannot be used again.
    ///
    /// # Panics
    /// With more sends than [`submissions`](Ring::submissions).
    pub(super) fn turn<'a>(
        &mut self,
        sends: impl Iterator<Item = Send<'a>>,
        streams: impl Iterator<Item = StreamSend<'a>>,
        wait: Wait,
    ) -> io::Result<()> {
        for send in streams {
            let entry = self.stream_entry(&send)?;
            self.push(&entry)?;
        }
        for (index, send) in sends.enumerate() {
            let entry = self.memory.send_entry(index, &send);
            self.push(&entry)?;
        }
        self.enter(wait)?;
        self.memory.forget_gathers();
        Ok(())
    }

    /// Completions did not fit the queue and wait in the kernel: another turn brings them.
    pub(super) fn has_overflow(&mut self) -> bool {
        self.io.submission().cq_overflow()
    }

    /// The kernel had more to do for this ring when the last enter returned: one enter posts 32 datagrams of a socket, or as
    /// many as it waits for, and leaves the others to the next.
    pub(super) const fn has_more_work(&self) -> bool {
        self.more_work
    }

    /// The next completion that the last enter brought.
    pub(super) fn next(&mut self) -> Option<Completion> {
        loop {
            let entry = self.io.completion().next()?;
            let flags = entry.flags();
            let result = u32::try_from(entry.result()).map_err(|_| -entry.result());
            if let Some(op) = Op::decode(entry.user_data()) {
                let filled = match (cqueue::buffer_select(flags), op) {
                    (None, _) => Filled::Nothing,
                    (Some(id), Op::StreamRead(_)) => Filled::StreamBuffer(StreamBuffer(id)),
                    (Some(id), _) => Filled::Buffer(Buffer(id)),
                };
                let (more, has_more) = (cqueue::more(flags), cqueue::sock_nonempty(flags));
                return Some(Completion { op, result, more, has_more, filled });
            }
            debug_assert!(false, "a completion of no operation: {entry:?}");
        }
    }

    /// The first `len` bytes of a buffer.
    ///
    /// # Panics
    /// When `len` is more than a buffer holds.
    pub(super) fn bytes(&self, buffer: &Buffer, len: usize) -> &[u8] {
        self.memory.datagrams.bytes(buffer.0, len)
    }

    /// The first `len` bytes of a stream's buffer.
    ///
    /// # Panics
    /// When `len` is more than a buffer holds.
    pub(super) fn stream_bytes(&self, buffer: &StreamBuffer, len: usize) -> &[u8] {
        self.memory.streams_ref().buffers.bytes(buffer.0, len)
    }

    /// Puts a buffer at the tail of its buffer ring; the kernel sees it at the next [`publish`](Ring::publish).
    pub(super) fn give_back(&mut self, buffer: Buffer) {
        let Buffer(id) = buffer;
        self.memory.datagrams.give_back(id);
    }

    /// Likewise a stream's; the kernel sees it at the next [`stream_publish`](Ring::stream_publish).
    pub(super) fn stream_give_back(&mut self, buffer: StreamBuffer) {
        let StreamBuffer(id) = buffer;
        self.memory.streams_mut().buffers.give_back(id);
    }

    /// Shows the kernel the buffers given back.
    pub(super) fn publish(&mut self) {
        self.memory.datagrams.publish();
    }

    /// Shows the kernel the streams' buffers given back.
    pub(super) fn stream_publish(&mut self) {
        self.memory.streams_mut().buffers.publish();
    }

    /// The entry of a stream's send. Submits early where there is no room for what it has to point to.
    fn stream_entry(&mut self, send: &StreamSend<'_>) -> io::Result<Entry> {
        // A send is whole or has failed: MSG_WAITALL makes a short one a failure, which is completed with what was sent.
        const FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let fd = Fd(send.fd.as_raw_fd());
        let mut pieces = send.pieces.clone();
        let entry = if let (Some(only), None) = (pieces.next(), pieces.next()) {
            let len = u32::try_from(only.len()).unwrap_or(u32::MAX);
            opcode::Send::new(fd, only.as_ptr(), len).flags(FLAGS).build()
        } else {
            if !self.memory.can_gather(&send.pieces) {
                self.enter(Wait::Submit)?;
                self.memory.forget_gathers();
            }
            let header = self.memory.gather(&send.pieces);
            opcode::SendMsg::new(fd, header).flags(FLAGS.cast_unsigned()).build()
        };
        Ok(entry.flags(Flags::SKIP_SUCCESS).user_data(send.op.encode()))
    }

    fn push(&mut self, entry: &Entry) -> io::Result<()> {
        if self.io.submission().is_full() {
            self.enter(Wait::Submit)?;
        }
        // SAFETY: receives and the wake read point into `memory`, which outlives the ring; sends point to what `turn` borrows
        // until the entry is consumed; polls, cancels and streams' receives point to nothing.
        let pushed = unsafe { self.io.submission().push(entry) };
        pushed.map_err(|_| {
            self.dead = true;
            io::ErrorKind::QuotaExceeded.into()
        })
    }

    /// Submits every entry and waits. On return the submission queue is empty, or the ring is dead.
    fn enter(&mut self, wait: Wait) -> io::Result<()> {
        let mut wait = wait;
        for _ in 0..SUBMIT_TRIES {
            if self.dead {
                break;
            }
            self.enters += 1;
            let result = self.enter_once(wait);
            // Now and not later: what arrives from here on is no backlog of this turn.
            self.more_work = self.io.submission().taskrun();
            match result {
                Ok(()) => {}
                Err(error) => match error.raw_os_error() {
                    // The time is over; a signal came; the completion queue or memory is short for now.
                    Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => {}
                    _ => {
                        self.dead = !self.io.submission().is_empty();
                        return Err(error);
                    }
                },
            }
            if self.io.submission().is_empty() {
                return Ok(());
            }
            wait = Wait::Poll;
        }
        self.dead = true;
        Err(io::Error::new(io::ErrorKind::OutOfMemory, "the kernel takes no submissions"))
    }

    fn enter_once(&mut self, wait: Wait) -> io::Result<()> {
        let pending = u32::try_from(self.io.submission().len()).unwrap_or(u32::MAX);
        let submitter = self.io.submitter();
        let result = match wait {
            // SAFETY: no argument; the entries submitted are sound as `push` says.
            Wait::Submit => unsafe { submitter.enter::<()>(pending, 0, 0, None) },
            Wait::Poll => {
                let flags = EnterFlags::GETEVENTS.bits();
                // SAFETY: as above.
                unsafe { submitter.enter::<()>(pending, 0, flags, None) }
            }
            Wait::Until { want, min_wait_us, timeout } => {
                let mut flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
                if self.io.params().is_feature_no_iowait() {
                    // An idle shard is idle, not waiting for a disk.
                    flags |= EnterFlags::NO_IOWAIT;
                }
                let timespec = timeout.map(Timespec::from);
                let mut args = SubmitArgs::new().min_wait_usec(min_wait_us);
                if let Some(timespec) = &timespec {
                    args = args.timespec(timespec);
                }
                // SAFETY: as above; `args` and the time it points to outlive the call and have the layout EXT_ARG asks for, as
                // the library's own `submit_with_args` passes them.
                unsafe { submitter.enter(pending, want.into(), flags.bits(), Some(&args)) }
            }
        };
        result.map(drop)
    }
}

impl Memory {
    /// The kernel reads only the lengths of a receive header: where name and control go is the buffer's business.
    fn write_headers(&self, control_lens: [usize; 2]) {
        for (index, control) in control_lens.into_iter().enumerate() {
            let header = self.headers.at(index);
            // SAFETY: an element of our own array, unknown to the kernel yet.
            unsafe { (*header).msg_namelen = NAME_LEN_MAX };
            // SAFETY: as above.
            unsafe { (*header).msg_controllen = control as _ };
        }
    }

    #[expect(clippy::expect_used, reason = "only a driver with streams asks")]
    fn streams_ref(&self) -> &StreamMemory {
        self.streams.as_ref().expect("a ring with streams")
    }

    #[expect(clippy::expect_used, reason = "only a driver with streams asks")]
    fn streams_mut(&mut self) -> &mut StreamMemory {
        self.streams.as_mut().expect("a ring with streams")
    }

    /// Whether there is room for what a gathering send points to.
    fn can_gather(&self, pieces: &Pieces<'_>) -> bool {
        let streams = self.streams_ref();
        streams.headers_used < streams.headers.len()
            && pieces.count_left() <= streams.iovecs.len() - streams.iovecs_used
    }

    /// The header of a send of these pieces. The caller has checked that there is room.
    fn gather(&mut self, pieces: &Pieces<'_>) -> *const msghdr {
        let streams = self.streams_mut();
        let first = streams.iovecs.at(streams.iovecs_used);
        let mut count = 0;
        for piece in pieces.clone() {
            let iov =
                libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() };
            let at = streams.iovecs.at(streams.iovecs_used + count);
            // SAFETY: an element of our own table that no entry points to since it was last forgotten.
            unsafe { at.write(IoVec(iov)) };
            count += 1;
        }
        let header = streams.headers.at(streams.headers_used);
        // SAFETY: as above. The rest of the header is zero from the start: no name, no control messages.
        unsafe { (*header).msg_iov = first.cast() };
        // SAFETY: as above.
        unsafe { (*header).msg_iovlen = count as _ };
        streams.iovecs_used += count;
        streams.headers_used += 1;
        header
    }

    /// The kernel has read all headers.
    fn forget_gathers(&mut self) {
        if let Some(streams) = &mut self.streams {
            (streams.headers_used, streams.iovecs_used) = (0, 0);
        }
    }

    fn send_entry(&mut self, index: usize, send: &Send<'_>) -> Entry {
        self.sends.set(index, &send.message);
        let fd = Fd(send.fd.as_raw_fd());
        let payload = send.message.payload;
        let entry = if send.message.segment.is_none() && send.message.local.is_none() {
            // Cheaper than a message header by a twentieth.
            let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
            let entry = opcode::Send::new(fd, payload.as_ptr(), len).flags(libc::MSG_DONTWAIT);
            match send.message.peer {
                Some(_) => {
                    let name = self.sends.name(index);
                    entry.dest_addr(name).dest_addr_len(self.sends.name_len(index)).build()
                }
                None => entry.build(),
            }
        } else {
            opcode::SendMsg::new(fd, self.sends.header(index))
                .flags(libc::MSG_DONTWAIT.cast_unsigned())
                .build()
        };
        entry.flags(Flags::SKIP_SUCCESS).user_data(send.op.encode())
    }
}

impl BufferRing {
    fn new(count: u16, buffer_len: u32) -> io::Result<Self> {
        let bytes = usize::from(count).checked_mul(buffer_len as usize);
        Ok(Self {
            entries: Fixed::new(count.into())?,
            tail: 0,
            pool: Fixed::new(bytes.ok_or(io::ErrorKind::OutOfMemory)?)?,
            buffer_len,
        })
    }

    /// Where a buffer starts.
    fn start(&self, id: u16) -> *mut u8 {
        self.pool.at(usize::from(id) * self.buffer_len as usize)
    }

    fn bytes(&self, id: u16, len: usize) -> &[u8] {
        assert!(len <= self.buffer_len as usize);
        let at = self.start(id);
        // SAFETY: `buffer_len` bytes from here are this buffer's. It was named by a completion and not given back, so the kernel
        // does not write to it, and giving it back takes the `Buffer` by value and the ring by `&mut`.
        unsafe { std::slice::from_raw_parts(at, len) }
    }

    fn give_back(&mut self, id: u16) {
        let at = self.start(id);
        let slot = usize::from(self.tail) & (self.entries.len() - 1);
        let entry = self.entries.at(slot).cast::<BufRingEntry>();
        // SAFETY: an entry the kernel has consumed and will not read before the tail passes it. Only the address, length and id
        // are written; the tail shares the first entry's remaining field.
        unsafe { (*entry).set_addr(at.addr() as u64) };
        // SAFETY: as above.
        unsafe { (*entry).set_len(self.buffer_len) };
        // SAFETY: as above.
        unsafe { (*entry).set_bid(id) };
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        let base = self.entries.at(0).cast::<BufRingEntry>();
        // SAFETY: `base` is the first entry of the buffer ring.
        let tail = unsafe { BufRingEntry::tail(base) };
        // SAFETY: aligned, alive as long as the ring, and shared with the kernel only by atomic access from here on.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Ring {
    /// Ends everything in flight; whether that is certain. Closing a ring does not wait for its operations, and one that is
    /// still in flight holds its socket, and with it the port.
    fn cancel_all(&mut self) -> bool {
        for _ in 0..CANCEL_TRIES {
            let timeout = Some(Timespec::new().sec(1));
            match self.io.submitter().register_sync_cancel(timeout, CancelBuilder::any()) {
                // A cancelled operation completes, and lets go, when its thread next looks.
                Ok(()) => {}
                Err(error) => return error.raw_os_error() == Some(libc::ENOENT),
            }
            let flags = EnterFlags::GETEVENTS.bits();
            // SAFETY: submits nothing and has no argument.
            let _ = unsafe { self.io.submitter().enter::<()>(0, 0, flags, None) };
            self.io.completion().for_each(drop);
        }
        false
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let done = self.cancel_all();
        // SAFETY: dropped once, here.
        unsafe { ManuallyDrop::drop(&mut self.io) };
        if done {
            // SAFETY: dropped once, here. Nothing is in flight, so the kernel writes to none of it.
            unsafe { ManuallyDrop::drop(&mut self.memory) };
        }
        // Else it leaks: better than freeing what the kernel may still write to.
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("enters", &self.enters).field("dead", &self.dead).finish()
    }
}

/// Sends of several pieces, and pieces, that one submission holds: the longest send, and some.
const GATHERS_MAX: usize = 128;
const PIECES_MAX: usize = 1024;
const _: () = assert!(PIECES_MAX >= crate::stream::PIECES_MAX);
/// IORING_RECVSEND_POLL_FIRST (5.19), which the library does not export.
const POLL_FIRST: u16 = 1;
/// Bytes of an eventfd's counter.
const COUNTER_LEN: u32 = 8;
/// Enters in a row that may leave entries in the submission queue before the ring is given up.
const SUBMIT_TRIES: usize = 1000;
/// Rounds of cancelling before a ring's memory is left to leak; one is enough unless completions were waiting for room.
const CANCEL_TRIES: usize = 1000;

const _: () = assert!(size_of::<BufEntry>() == size_of::<BufRingEntry>());
