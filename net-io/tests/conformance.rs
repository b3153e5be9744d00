//! What every driver does: one list of scenarios, one run of it per driver.
//!
//! A host that refuses io_uring fails the ring's half: a green run means that every driver was tested.
#![expect(clippy::unwrap_used, reason = "a test that cannot set up has failed")]

#[path = "conformance/bed.rs"]
mod bed;
#[path = "conformance/limits.rs"]
mod limits;
#[path = "conformance/traffic.rs"]
mod traffic;
#[path = "conformance/waiting.rs"]
mod waiting;

/// A test per scenario.
macro_rules! tests {
    ($bed:ident: $($file:ident { $($scenario:ident)* })*) => {
        $($(
            #[test]
            fn $scenario() {
                crate::$file::$scenario(&mut crate::bed::$bed::default());
            }
        )*)*
    };
}

/// What all drivers have in common.
macro_rules! everywhere {
    ($bed:ident) => {
        tests! { $bed:
            traffic {
                echo_over_ipv4
                echo_over_ipv6
                a_wildcard_answers_from_the_address_used
                many_peers_are_told_apart
                each_peers_datagrams_come_in_order
                one_driver_serves_many_sockets
                equal_datagrams_leave_as_one_train
                trains_can_be_switched_off
                a_peer_that_is_gone_is_silence
            }
            limits {
                an_empty_datagram_is_dropped_and_counted
                the_largest_datagram_passes_and_the_next_larger_is_dropped
                a_full_arena_is_sent_early
                a_full_list_of_trains_is_sent_early
                more_datagrams_than_buffers_lose_nothing
                the_sockets_overflow_is_counted
                a_flood_of_empty_datagrams_does_not_hold_the_turn
            }
            waiting {
                a_deadline_is_kept_and_never_early
                a_past_deadline_polls
                a_wait_without_deadline_ends_with_a_datagram
                an_unfinished_batch_does_not_block
                a_wake_before_the_wait_is_not_lost
                many_wakes_count_as_one
                an_idle_driver_sleeps
                gathering_ends_with_the_deadline
            }
        }
    };
}

/// What takes real time or a second thread.
macro_rules! in_real_time {
    ($bed:ident) => {
        tests! { $bed:
            waiting {
                wakes_from_another_thread_end_the_wait
                a_storm_of_wakes_loses_none
                gathering_takes_its_time
            }
        }
    };
}

mod uring {
    everywhere! { UringBed }
    in_real_time! { UringBed }
}

mod epoll {
    everywhere! { EpollBed }
    in_real_time! { EpollBed }
}

mod sim {
    everywhere! { SimBed }
}
