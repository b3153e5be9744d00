//! Memory that runs short: who has to end, and who does not notice.

use kcp_gateway::shard::backend_stats::Parting;
use kcp_gateway::shard::stats::{EndReason, Stat};

use crate::world::{Call, World};

/// Clients that take nothing fill what may wait between a backend that echoes and its sessions: of them, some end, and others
/// are served. `pool_bytes_max` is what may wait; each session may have a fraction of it queued.
pub(crate) fn those_who_hold_most_end(world: &mut World, pool_bytes_max: usize) {
    world.add_client(40, 100, 20_000);
    world.clients[0].outstanding = 100;
    world.clients[0].reading = false;
    world.add_client(10, 300, 1000);
    let mut most = 0;
    for _ in 0..400 {
        world.run(50, |_| false);
        most = most.max(world.stat(Stat::PoolBytes));
    }
    assert!(most <= pool_bytes_max as u64, "{most}");
    let shed = world.ends(EndReason::Shed);
    assert!((1..40).contains(&shed), "{shed} ended");
    assert_eq!(world.ends(EndReason::PoolFull), 0);
    assert!(world.clients[1].calls.iter().all(Call::is_complete), "and the others are served");
    assert_eq!(world.backend(0, |b| b.partings(Parting::Shed)), shed);
}
