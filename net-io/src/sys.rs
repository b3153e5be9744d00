//! System calls as safe functions, and the memory that the kernel reads and writes at fixed addresses.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::time::Duration;

use libc::{c_int, c_void, iovec, mmsghdr, msghdr, socklen_t};

use crate::addr::{NAME_LEN_MAX, NAME_MAX, Name};
use crate::cmsg::{self, Control};

/// Turns the -1 of a system call into its errno.
fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The length of `T` as socket calls take it.
const fn socklen<T>() -> socklen_t {
    assert!(size_of::<T>() <= 4096);
    #[expect(clippy::cast_possible_truncation, reason = "asserted above")]
    {
        size_of::<T>() as socklen_t
    }
}

/// Sets an integer socket option.
pub(crate) fn set_option(
    fd: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: c_int,
) -> io::Result<()> {
    // SAFETY: the pointer and length name one c_int, alive for the call; the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            ptr::from_ref(&value).cast(),
            socklen::<c_int>(),
        )
    };
    check(result).map(drop)
}

/// Reads an integer socket option.
pub(crate) fn option(fd: BorrowedFd<'_>, level: c_int, name: c_int) -> io::Result<c_int> {
    let mut value: c_int = 0;
    let mut len = socklen::<c_int>();
    // SAFETY: the kernel writes at most `len` bytes to `value` and the length it wrote to `len`; both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            name,
            ptr::from_mut(&mut value).cast(),
            &raw mut len,
        )
    };
    check(result).map(|_| value)
}

/// What a socket's receive buffer holds and what it had no room for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReceiveMemory {
    /// Bytes of memory that waiting datagrams occupy, and some that the kernel has yet to notice are free.
    pub(crate) used: u32,
    /// Datagrams dropped. Wraps.
    pub(crate) drops: u32,
}

/// The state of a socket's receive buffer.
pub(crate) fn receive_memory(fd: BorrowedFd<'_>) -> io::Result<ReceiveMemory> {
    const FIELDS: usize = 9;
    const USED: usize = libc::SK_MEMINFO_RMEM_ALLOC as usize;
    const DROPS: usize = libc::SK_MEMINFO_DROPS as usize;
    let mut info = [0u32; FIELDS];
    let mut len = socklen::<[u32; FIELDS]>();
    // SAFETY: the kernel writes at most `len` bytes to `info`, and the length it wrote to `len`; both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    check(result).map(|_| ReceiveMemory { used: info[USED], drops: info[DROPS] })
}

/// Processor time that this thread has used; zero where the kernel does not tell.
pub(crate) fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec to `time`, which outlives the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    match (check(result), u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec)) {
        (Ok(_), Ok(seconds), Ok(nanoseconds)) => Duration::new(seconds, nanoseconds),
        _ => Duration::ZERO,
    }
}

/// The size from which on malloc maps a piece by itself, in bytes; fixed from now on.
#[cfg(target_env = "gnu")]
pub(crate) fn set_mmap_threshold(bytes: i32) {
    // SAFETY: changes a setting of the allocator's under its own lock. It refuses no size below 32 MiB.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, bytes) };
}

/// Nothing to set: malloc is another one.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn set_mmap_threshold(_bytes: i32) {}

/// Attaches a classic BPF program to the SO_REUSEPORT group of a bound socket.
pub(crate) fn attach_reuseport(
    fd: BorrowedFd<'_>,
    program: &[libc::sock_filter],
) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `program` and the instructions it points to outlive the call; the kernel copies them and writes nothing.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            ptr::from_ref(&program).cast(),
            socklen::<libc::sock_fprog>(),
        )
    };
    check(result).map(drop)
}

/// A blocking eventfd at zero.
pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An epoll set.
#[derive(Debug)]
pub(crate) struct Epoll {
    fd: OwnedFd,
    /// The kernel has epoll_pwait2 (5.11), whose timeout is not in milliseconds.
    precise: bool,
}

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: takes no pointers.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the descriptor is new and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd, precise: true })
    }

    /// Watches `fd` for input, level-triggered; its events carry `token`.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        self.add_for(fd, libc::EPOLLIN, token)
    }

    /// Watches `fd` for all that changes on a stream, edge-triggered: each change is told once.
    pub(crate) fn add_stream(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        let events = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        self.add_for(fd, events, token)
    }

    fn add_for(&self, fd: BorrowedFd<'_>, events: c_int, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events.cast_unsigned(), u64: token };
        // SAFETY: `event` outlives the call; the kernel copies it.
        let result = unsafe {
            libc::epoll_ctl(
                self.fd.as_raw_fd(),
                libc::EPOLL_CTL_ADD,
                fd.as_raw_fd(),
                &raw mut event,
            )
        };
        check(result).map(drop)
    }

    /// Waits for events, at most `timeout` (for ever when `None`), and returns how many were written. Never early, but for an
    /// interrupting signal.
    pub(crate) fn wait(
        &mut self,
        events: &mut [libc::epoll_event],
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        let room = c_int::try_from(events.len()).unwrap_or(c_int::MAX);
        let result = if self.precise {
            match self.wait_precise(events, room, timeout) {
                Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                    self.precise = false;
                    self.wait_coarse(events, room, timeout)
                }
                result => result,
            }
        } else {
            self.wait_coarse(events, room, timeout)
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            result => result,
        }
    }

    fn wait_precise(
        &self,
        events: &mut [libc::epoll_event],
        room: c_int,
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        let timespec = timeout.map(|timeout| libc::timespec {
            tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::from(timeout.subsec_nanos().cast_signed()),
        });
        let timespec = timespec.as_ref().map_or(ptr::null(), ptr::from_ref);
        // By number: the C library may be older than the call. The last two arguments are the signal mask (none) and its size.
        // SAFETY: the kernel writes at most `room` events, which is no more than `events` holds; `timespec` outlives the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.fd.as_raw_fd(),
                events.as_mut_ptr(),
                room,
                timespec,
                ptr::null::<c_void>(),
                0usize,
            )
        };
        usize::try_from(result).map_err(|_| io::Error::last_os_error())
    }

    fn wait_coarse(
        &self,
        events: &mut [libc::epoll_event],
        room: c_int,
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        // Rounded up: a wait that ends early would spin until its deadline.
        let timeout = timeout.map_or(-1, |timeout| {
            c_int::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(c_int::MAX)
        });
        // SAFETY: the kernel writes at most `room` events, which is no more than `events` holds.
        let result =
            unsafe { libc::epoll_wait(self.fd.as_raw_fd(), events.as_mut_ptr(), room, timeout) };
        usize::try_from(result).map_err(|_| io::Error::last_os_error())
    }
}

/// Types for which all-zero bytes are a value and which need no drop.
///
/// # Safety
/// Both must hold.
pub(crate) unsafe trait Plain: Copy {}
// SAFETY: any byte is a value.
unsafe impl Plain for u8 {}
// SAFETY: integers, and pointers that may be null.
unsafe impl Plain for msghdr {}
// SAFETY: integers, and pointers that may be null.
unsafe impl Plain for mmsghdr {}

/// An array of zeroed pages at an address that never changes: both sides hold pointers into it.
///
/// Pages are touched when first written, not here.
pub(crate) struct Fixed<T> {
    base: NonNull<T>,
    len: usize,
    owns: PhantomData<T>,
}

impl<T: Plain> Fixed<T> {
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        let len = len.max(1);
        let bytes = len.checked_mul(size_of::<T>()).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len, owns: PhantomData })
    }

    /// The address of element `index`, aligned, and valid for reads and writes of the elements from there on.
    ///
    /// # Panics
    /// When there is no such element.
    pub(crate) fn at(&self, index: usize) -> *mut T {
        assert!(index < self.len, "element {index} of {}", self.len);
        // SAFETY: within the mapping, as just checked.
        unsafe { self.base.as_ptr().add(index) }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

/// A length for buffers that lie next to each other, of at least `bytes`: an odd number of cache lines, so that their first lines, which
/// every datagram touches, are spread over all sets of a cache.
pub(crate) const fn spread_len(bytes: usize) -> usize {
    (bytes.div_ceil(CACHE_LINE) | 1) * CACHE_LINE
}

impl<T> fmt::Debug for Fixed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} elements at {:p}", self.len, self.base)
    }
}

impl<T> Drop for Fixed<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, unmapped once; who owned this has seen to it that the kernel is done with it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len * size_of::<T>()) };
    }
}

/// One send: a datagram, or a train of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    /// The bytes, datagram after datagram.
    pub(crate) payload: &'a [u8],
    /// The receiver; `None` is the one that the socket is connected to.
    pub(crate) peer: Option<SocketAddr>,
    /// The source address; `None` leaves it to the socket and the route.
    pub(crate) local: Option<IpAddr>,
    /// The size to cut the payload into.
    pub(crate) segment: Option<u16>,
}

/// What a message header points to, next to each other.
#[derive(Clone, Copy)]
struct Parts {
    iov: iovec,
    name: Name,
    control: Control,
}
// SAFETY: integers, byte arrays, and pointers that may be null.
unsafe impl Plain for Parts {}

/// Headers of messages to send, in the array that sendmmsg(2) takes.
#[derive(Debug)]
pub(crate) struct SendTable {
    headers: Fixed<mmsghdr>,
    parts: Fixed<Parts>,
}

impl SendTable {
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        Ok(Self { headers: Fixed::new(len)?, parts: Fixed::new(len)? })
    }

    pub(crate) fn len(&self) -> usize {
        self.headers.len()
    }

    /// Writes `message` to entry `index`. The entry points at the payload, and must not be used once that is gone.
    pub(crate) fn set(&mut self, index: usize, message: &Message<'_>) {
        let parts = self.parts.at(index);
        let value = Parts {
            iov: iovec {
                iov_base: message.payload.as_ptr().cast_mut().cast(),
                iov_len: message.payload.len(),
            },
            name: message.peer.map_or(Name::NONE, Name::from),
            control: Control::new(message.local, message.segment),
        };
        // SAFETY: an element of our own table; the kernel reads it only within a call that this `&mut self` excludes.
        unsafe { parts.write(value) };
        let header = self.headers.at(index);
        // SAFETY: as above.
        unsafe { header.write(header_of(parts, value.control.len())) };
    }

    /// The header at `index`, as last set.
    pub(crate) fn header(&self, index: usize) -> *const msghdr {
        // SAFETY: the address of a field of an element, computed without reading it.
        unsafe { &raw const (*self.headers.at(index)).msg_hdr }
    }

    /// The receiver's address at `index`, as last set.
    pub(crate) fn name(&self, index: usize) -> *const libc::sockaddr {
        // SAFETY: the address of a field of an element, computed without reading it.
        unsafe { &raw const (*self.parts.at(index)).name }.cast()
    }

    /// The length of that address.
    pub(crate) fn name_len(&self, index: usize) -> socklen_t {
        // SAFETY: an element of our own table, zeroed or set; the kernel never writes it.
        unsafe { (*self.parts.at(index)).name.len() }
    }

    /// Sends `messages` from one socket in one call, as many as fit the table and the kernel takes without blocking.
    ///
    /// # Errors
    /// What the first message met; none was sent. An error of a later message shows when it is sent first.
    pub(crate) fn send<'a>(
        &mut self,
        fd: BorrowedFd<'_>,
        messages: impl Iterator<Item = Message<'a>>,
    ) -> io::Result<usize> {
        let mut count = 0;
        for message in messages.take(self.len()) {
            self.set(count, &message);
            count += 1;
        }
        let vlen = u32::try_from(count).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the first `vlen` headers were just set from messages that outlive this call ('a does), and everything they
        // point to is in our table or in those messages; the kernel writes only the `msg_len` fields.
        let result =
            unsafe { libc::sendmmsg(fd.as_raw_fd(), self.headers.at(0), vlen, libc::MSG_DONTWAIT) };
        usize::try_from(result).map_err(|_| io::Error::last_os_error())
    }
}

/// A header for `parts`, whose control messages take `control_len` bytes.
fn header_of(parts: *mut Parts, control_len: usize) -> mmsghdr {
    // SAFETY: all-zero bytes are an mmsghdr (`Plain`).
    let mut header: mmsghdr = unsafe { std::mem::zeroed() };
    // SAFETY: the address of a field of a live element, computed without reading it; so the next two.
    header.msg_hdr.msg_iov = unsafe { &raw mut (*parts).iov };
    header.msg_hdr.msg_iovlen = 1;
    // SAFETY: as above.
    header.msg_hdr.msg_name = unsafe { &raw mut (*parts).name }.cast();
    // SAFETY: the element was written before its header is made.
    header.msg_hdr.msg_namelen = unsafe { (*parts).name.len() };
    if control_len > 0 {
        // SAFETY: as above.
        header.msg_hdr.msg_control = unsafe { &raw mut (*parts).control }.cast();
        header.msg_hdr.msg_controllen = control_len as _;
    }
    header
}

/// One received datagram or train, as the kernel reported it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received<'a> {
    pub(crate) payload: &'a [u8],
    /// The sender's address, to be decoded.
    pub(crate) name: &'a [u8],
    /// Control messages, to be decoded.
    pub(crate) control: &'a [u8],
    /// The datagram was longer than the payload.
    pub(crate) truncated: bool,
}

impl Received<'_> {
    /// Where in the payload the datagram lies that starts `through` bytes into it.
    pub(crate) fn datagram(&self, through: usize, trains: bool) -> Range<usize> {
        let len = self.payload.len();
        match trains {
            false => through..len,
            true => through..cmsg::end_of_datagram(self.control, through, len),
        }
    }
}

/// Buffers for one recvmmsg(2).
#[derive(Debug)]
pub(crate) struct ReceiveTable {
    headers: Fixed<mmsghdr>,
    iovecs: Fixed<IoVec>,
    names: Fixed<[u8; NAME_MAX]>,
    controls: Fixed<[u64; cmsg::RECEIVE_MAX / 8]>,
    pool: Fixed<u8>,
    payload_max: usize,
    /// How many the last call received.
    filled: usize,
}

#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct IoVec(pub(crate) iovec);
// SAFETY: an integer, and a pointer that may be null.
unsafe impl Plain for IoVec {}
// SAFETY: any bytes are a value.
unsafe impl Plain for [u8; NAME_MAX] {}
// SAFETY: any bytes are a value.
unsafe impl Plain for [u64; cmsg::RECEIVE_MAX / 8] {}

impl ReceiveTable {
    /// `len` buffers of `payload_max` bytes.
    pub(crate) fn new(len: usize, payload_max: usize) -> io::Result<Self> {
        let bytes = len.checked_mul(payload_max).ok_or(io::ErrorKind::OutOfMemory)?;
        let table = Self {
            headers: Fixed::new(len)?,
            iovecs: Fixed::new(len)?,
            names: Fixed::new(len)?,
            controls: Fixed::new(len)?,
            pool: Fixed::new(bytes)?,
            payload_max,
            filled: 0,
        };
        for index in 0..len {
            let iov =
                iovec { iov_base: table.pool.at(index * payload_max).cast(), iov_len: payload_max };
            // SAFETY: an element of our own table, unknown to the kernel yet.
            unsafe { table.iovecs.at(index).write(IoVec(iov)) };
        }
        Ok(table)
    }

    pub(crate) fn len(&self) -> usize {
        self.headers.len()
    }

    /// Receives up to `count` datagrams without blocking, with `control_len` bytes of control messages each, and returns how many.
    /// What was received before is gone.
    ///
    /// # Panics
    /// With more control bytes than there is room for.
    pub(crate) fn receive(
        &mut self,
        fd: BorrowedFd<'_>,
        count: usize,
        control_len: usize,
    ) -> io::Result<usize> {
        assert!(control_len <= cmsg::RECEIVE_MAX);
        self.filled = 0;
        let count = count.min(self.len());
        for index in 0..count {
            // The kernel shortens both lengths to what it wrote.
            // SAFETY: all-zero bytes are an mmsghdr (`Plain`).
            let mut header: mmsghdr = unsafe { std::mem::zeroed() };
            header.msg_hdr.msg_iov = self.iovecs.at(index).cast();
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = self.names.at(index).cast();
            header.msg_hdr.msg_namelen = NAME_LEN_MAX;
            if control_len > 0 {
                header.msg_hdr.msg_control = self.controls.at(index).cast();
                header.msg_hdr.msg_controllen = control_len as _;
            }
            // SAFETY: an element of our own table; no call is in progress.
            unsafe { self.headers.at(index).write(header) };
        }
        let vlen = u32::try_from(count).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the first `vlen` headers were just written; each names a buffer, a name and control bytes of its own, which
        // live as long as this table and to which no reference exists while we hold `&mut self`.
        let result = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                self.headers.at(0),
                vlen,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        self.filled = usize::try_from(result).map_err(|_| io::Error::last_os_error())?;
        Ok(self.filled)
    }

    /// Datagram `index` of the last call.
    ///
    /// # Panics
    /// When it received fewer.
    pub(crate) fn get(&self, index: usize) -> Received<'_> {
        assert!(index < self.filled, "datagram {index} of {}", self.filled);
        // SAFETY: an element that the kernel finished writing when the call returned.
        let header = unsafe { *self.headers.at(index) };
        let payload_len = (header.msg_len as usize).min(self.payload_max);
        let name_len = (header.msg_hdr.msg_namelen as usize).min(NAME_MAX);
        #[allow(clippy::unnecessary_cast, reason = "usize in one C library, u32 in another")]
        let control_len = (header.msg_hdr.msg_controllen as usize).min(cmsg::RECEIVE_MAX);
        let payload = self.pool.at(index * self.payload_max);
        Received {
            // SAFETY: `payload_max` bytes of the pool are this buffer's, and the next call to write them needs `&mut self`.
            payload: unsafe { std::slice::from_raw_parts(payload, payload_len) },
            // SAFETY: as above, for its name.
            name: unsafe { std::slice::from_raw_parts(self.names.at(index).cast(), name_len) },
            // SAFETY: as above, for its control bytes.
            control: unsafe {
                std::slice::from_raw_parts(self.controls.at(index).cast(), control_len)
            },
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        }
    }
}

const CACHE_LINE: usize = 64;
/// Longest payload that one receive can bring: a datagram, or a train of them.
pub(crate) const RECEIVED_MAX: usize = 65_535;

const _: () = assert!(cmsg::RECEIVE_MAX.is_multiple_of(8));

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::clock::monotonic;

    /// Kernels before 5.11 wait in whole milliseconds.
    #[test]
    fn epoll_is_never_early_without_the_precise_call() {
        for precise in [true, false] {
            let mut epoll = Epoll { precise, ..Epoll::new().unwrap() };
            let mut events = [libc::epoll_event { events: 0, u64: 0 }; 2];
            for us in [0, 1, 999, 1001, 2500] {
                let before = monotonic();
                assert_eq!(epoll.wait(&mut events, Some(Duration::from_micros(us))).unwrap(), 0);
                assert!(monotonic().0 >= before.0 + us, "{us} us");
            }
            assert_eq!(epoll.precise, precise);
            let event = std::fs::File::from(eventfd().unwrap());
            epoll.add(event.as_fd(), 7).unwrap();
            std::io::Write::write_all(&mut &event, &1u64.to_ne_bytes()).unwrap();
            assert_eq!(epoll.wait(&mut events, None).unwrap(), 1);
            assert_eq!({ events[0].u64 }, 7);
        }
    }

    #[test]
    fn a_thread_is_charged_for_what_it_does() {
        let before = thread_cpu();
        while thread_cpu() < before + Duration::from_millis(20) {}
        let other = std::thread::spawn(thread_cpu).join().unwrap();
        assert!(other < Duration::from_millis(10), "another thread has a clock of its own");
    }

    #[test]
    fn fixed_memory_is_zeroed_page_aligned_and_bounded() {
        let memory = Fixed::<u8>::new(10_000).unwrap();
        assert_eq!(memory.at(0).addr() % 4096, 0);
        // SAFETY: the last element of ten thousand.
        assert_eq!(unsafe { *memory.at(9999) }, 0);
        assert!(std::panic::catch_unwind(|| Fixed::<u8>::new(1).unwrap().at(1)).is_err());
        assert!(Fixed::<[u8; NAME_MAX]>::new(usize::MAX / 2).is_err());
    }
}
