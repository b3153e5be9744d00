//! Starting and stopping in this process: what stands in the way is named, and nothing is left behind.

use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

use kcp_gateway::config::{Listener, Steer};
use kcp_gateway::shard::stats::Stat;
use kcp_gateway::{Drained, Gateway, StartError};
use net_io::IoChoice;

use crate::admin::config;
use crate::client::Client;
use crate::http::connect;

#[test]
fn a_port_in_use_is_named_with_the_remedy() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut config = config(IoChoice::Auto);
    config.listeners[0].addr = taken.local_addr().unwrap();
    let error = Gateway::start(config).unwrap_err();
    assert!(matches!(error, StartError::Bind(_)), "{error}");
    let text = error.to_string();
    assert!(text.contains(&taken.local_addr().unwrap().to_string()), "{text}");
    assert!(text.contains("ss -ulpn") && !text.contains('\n'), "{text}");
}

#[test]
fn an_admin_port_in_use_is_named_with_the_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config(IoChoice::Auto);
    config.admin.listen = taken.local_addr().ok();
    let text = Gateway::start(config).unwrap_err().to_string();
    assert!(text.contains(&taken.local_addr().unwrap().to_string()), "{text}");
    assert!(text.contains("--admin") && !text.contains('\n'), "{text}");
}

#[test]
fn an_address_of_nobody_stops_the_start_unless_it_is_optional() {
    let nobody = "[2001:db8::1]:0".parse().unwrap();
    let mut config = config(IoChoice::Auto);
    config.listeners.push(Listener::new(nobody));
    let error = Gateway::start(config.clone()).unwrap_err();
    assert!(error.to_string().contains("[2001:db8::1]:0"), "{error}");

    config.listeners[1].optional = true;
    let gateway = Gateway::start(config.clone()).unwrap();
    assert_eq!(gateway.listen_addrs().len(), 1);
    Client::new(gateway.listen_addrs()[0], 1).establish();

    config.listeners.remove(0);
    assert!(matches!(Gateway::start(config), Err(StartError::NoListener)));
}

#[test]
fn what_a_program_built_wrong_is_refused() {
    let mut config = config(IoChoice::Auto);
    config.io.buffers = 1000;
    let error = Gateway::start(config).unwrap_err();
    assert!(matches!(error, StartError::Config(_)), "{error}");
}

#[test]
fn stop_ends_everything_and_says_what_was() {
    for driver in [IoChoice::Uring, IoChoice::Epoll] {
        let gateway = Gateway::start(config(driver)).unwrap();
        let (listener, admin) = (gateway.listen_addrs()[0], gateway.admin_addr().unwrap());
        Client::new(listener, 1).establish();
        let mut idle = connect(admin);
        let totals = gateway.stop();
        assert_eq!((totals.get(Stat::Births), totals.shards.len()), (1, 2));
        // Both ports are free again, and the idle connection is gone.
        UdpSocket::bind(listener).unwrap();
        TcpListener::bind(admin).unwrap();
        assert_eq!(std::io::Read::read(&mut idle, &mut [0]).unwrap_or(0), 0);
    }
}

#[test]
fn a_drain_ends_with_the_last_session_or_with_its_time() {
    let gateway = Gateway::start(config(IoChoice::Auto)).unwrap();
    let (drained, _) = gateway.drain_and_stop(Duration::from_secs(3600));
    assert_eq!(drained, Drained::Empty);

    let gateway = Gateway::start(config(IoChoice::Auto)).unwrap();
    Client::new(gateway.listen_addrs()[0], 1).establish();
    let (drained, totals) = gateway.drain_and_stop(Duration::from_millis(100));
    assert_eq!((drained, totals.get(Stat::Births)), (Drained::TimedOut, 1));

    // The session ends by itself while the drain waits.
    let mut short = config(IoChoice::Auto);
    short.session.idle_timeout_s = 1;
    let gateway = Gateway::start(short).unwrap();
    Client::new(gateway.listen_addrs()[0], 1).establish();
    let (drained, totals) = gateway.drain_and_stop(Duration::from_secs(3600));
    assert_eq!((drained, totals.get(Stat::Sessions)), (Drained::Empty, 0));
}

#[test]
fn every_combination_of_steering_and_wildcard_serves() {
    for steer in [Steer::Conv, Steer::Address] {
        for addr in ["0.0.0.0:0", "127.0.0.1:0"] {
            let mut config = config(IoChoice::Auto);
            config.kcp.steer = steer;
            config.listeners[0].addr = addr.parse().unwrap();
            let gateway = Gateway::start(config).unwrap();
            let port = gateway.listen_addrs()[0].port();
            for conv in 0..8 {
                Client::new(([127, 0, 0, 1], port).into(), conv).establish();
            }
            assert_eq!(gateway.stats().get(Stat::Sessions), 8);
        }
    }
}

#[test]
fn two_gateways_do_not_share_a_port() {
    let first = Gateway::start(config(IoChoice::Auto)).unwrap();
    let mut second = config(IoChoice::Auto);
    second.listeners[0].addr = first.listen_addrs()[0];
    assert!(matches!(Gateway::start(second), Err(StartError::Bind(_))));
}
