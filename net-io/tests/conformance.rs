//! What every driver does: one list of scenarios, one run of it per driver.
//!
//! A host that refuses io_uring fails the ring's half: a green run means that every driver was tested.
#![expect(clippy::unwrap_used, reason = "a test that cannot set up has failed")]
#![expect(clippy::print_stdout, reason = "a random test prints its seed")]

#[path = "conformance/bed.rs"]
mod bed;
#[path = "conformance/chance.rs"]
mod chance;
#[path = "conformance/crowds.rs"]
mod crowds;
#[path = "conformance/limits.rs"]
mod limits;
#[path = "conformance/streams.rs"]
mod streams;
#[path = "conformance/traffic.rs"]
mod traffic;
#[path = "conformance/trains.rs"]
mod trains;
#[path = "conformance/waiting.rs"]
mod waiting;
#[path = "conformance/wire.rs"]
mod wire;

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
            trains {
                a_train_arrives_as_its_datagrams
                a_train_takes_one_receive
                the_longest_datagram_and_train_arrive_whole
                trains_and_singles_keep_their_order
                datagrams_of_a_train_that_are_too_long_are_counted
                a_socket_with_a_backlog_is_taken_over
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
                a_backlog_is_known_until_it_is_gone
                a_wake_before_the_wait_is_not_lost
                many_wakes_count_as_one
                an_idle_driver_sleeps
                gathering_ends_with_the_deadline
            }
        }
    };
}

/// What all drivers with streams have in common.
macro_rules! with_streams {
    ($bed:ident) => {
        tests! { $bed:
            streams {
                a_stream_over_ipv4_carries_both_ways
                a_stream_over_ipv6_carries_both_ways
                a_stream_over_a_unix_socket_carries_both_ways
                either_side_finishes_first
                both_sides_finish_at_once
                a_finish_waits_for_what_is_queued
                nothing_is_read_that_was_not_asked_for
                who_does_not_read_holds_the_writer_back
                a_write_cut_short_goes_on_without_a_wait
                large_transfers_arrive_whole
                many_writes_of_a_turn_leave_as_one_send
                a_connection_that_nobody_listens_for_is_refused
                bounds_on_streams_are_kept
                an_abort_is_a_reset_to_the_peer
                a_peer_that_leaves_in_mid_write_is_a_reset
                the_last_words_of_a_peer_are_heard
                a_handle_that_is_not_valid_finds_nobody
                a_connection_can_be_aborted_before_it_is_made
                events_left_over_do_not_block
            }
            chance {
                whatever_is_done_the_bytes_arrive
            }
            crowds {
                thousands_of_streams_take_turns
                streams_that_are_stuck_leave_room_for_others
                datagrams_flow_beside_busy_streams
                a_driver_that_goes_with_everything_under_way
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
    with_streams! { UringBed }
    in_real_time! { UringBed }
}

mod epoll {
    everywhere! { EpollBed }
    with_streams! { EpollBed }
    in_real_time! { EpollBed }
}

/// Nobody can tell that a driver takes trains whole.
mod uring_whole_trains {
    everywhere! { UringWholeBed }
    in_real_time! { UringWholeBed }
}

mod epoll_whole_trains {
    everywhere! { EpollWholeBed }
    in_real_time! { EpollWholeBed }
}

mod sim {
    everywhere! { SimBed }
    with_streams! { SimBed }
}
