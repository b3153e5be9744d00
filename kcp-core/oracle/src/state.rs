//! The control block's fields and the in-flight segments, by value.

use std::mem::offset_of;

use kcp_io::sys;

macro_rules! state {
    ($($field:ident: $type:ty),* $(,)?) => {
        /// The control block's fields; names are the reference's.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the reference's own fields")]
        pub struct State { $(pub $field: $type),* }

        impl State {
            pub(crate) fn of(block: &sys::IKCPCB) -> Self {
                Self { $($field: block.$field),* }
            }
        }
    };
}

state! {
    conv: u32, mtu: u32, mss: u32, state: u32,
    snd_una: u32, snd_nxt: u32, rcv_nxt: u32, ssthresh: u32,
    rx_rttval: i32, rx_srtt: i32, rx_rto: i32, rx_minrto: i32,
    snd_wnd: u32, rcv_wnd: u32, rmt_wnd: u32, cwnd: u32, probe: u32,
    current: u32, interval: u32, ts_flush: u32, xmit: u32,
    nrcv_buf: u32, nsnd_buf: u32, nrcv_que: u32, nsnd_que: u32,
    nodelay: u32, updated: u32, ts_probe: u32, probe_wait: u32,
    dead_link: u32, incr: u32, ackcount: u32,
    fastresend: i32, fastlimit: i32, nocwnd: i32, stream: i32,
}

/// A segment of the send side; names are the reference's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the reference's own fields")]
pub struct Segment {
    pub sn: u32,
    pub frg: u32,
    pub len: u32,
    pub ts: u32,
    pub resendts: u32,
    pub rto: u32,
    pub fastack: u32,
    pub xmit: u32,
}

/// The segments of a queue, first to last.
pub(crate) fn walk(head: &sys::IQUEUEHEAD) -> impl Iterator<Item = Segment> {
    let end: *const sys::IQUEUEHEAD = head;
    let mut node: *const sys::IQUEUEHEAD = head.next;
    std::iter::from_fn(move || {
        if node == end {
            return None;
        }
        // The list's node is the segment's first field, so the pointer to one is a pointer to the other.
        const { assert!(offset_of!(sys::IKCPSEG, node) == 0) };
        // SAFETY: the queue is a ring of segments that ends at its head; the control block is borrowed, so the library
        // changes nothing while this iterator lives.
        let segment = unsafe { &*node.cast::<sys::IKCPSEG>() };
        node = segment.node.next;
        let &sys::IKCPSEG { sn, frg, len, ts, resendts, rto, fastack, xmit, .. } = segment;
        Some(Segment { sn, frg, len, ts, resendts, rto, fastack, xmit })
    })
}
