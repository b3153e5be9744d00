//! What each dashboard shows.

mod backends;
mod drops;
mod fleet;
mod players;
mod shards;

use super::{Dashboard, Panel};

/// Every dashboard.
pub const ALL: &[Dashboard] = &[
    Dashboard { name: "fleet", title: "KCP gateway: fleet", rows: fleet::ROWS },
    Dashboard { name: "shards", title: "KCP gateway: shards", rows: shards::ROWS },
    Dashboard { name: "players", title: "KCP gateway: player health", rows: players::ROWS },
    Dashboard { name: "backends", title: "KCP gateway: backends", rows: backends::ROWS },
    Dashboard { name: "drops", title: "KCP gateway: drops", rows: drops::ROWS },
];

/// Titles, each with its graphs.
type Rows = &'static [(&'static str, &'static [Panel])];

const fn panel(
    title: &'static str,
    unit: &'static str,
    help: &'static str,
    queries: &'static [(&'static str, &'static str)],
) -> Panel {
    Panel { title, unit, help, queries }
}
