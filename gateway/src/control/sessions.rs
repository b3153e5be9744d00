//! Sessions in the API: puts lists together from what the shards answer, one bounded question after the other.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use crossbeam::channel::TrySendError;
use kcp_core::Conv;
use serde::{Deserialize, Serialize, Serializer};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::command::ShardCommand;
use super::plane::{CommandError, Plane};
use super::question::{Answer, Ask, Filter, GlobalId, Order, Page, Portrait, Question, Rank, Scan};

/// The parameters of `GET /api/v1/sessions`, as written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    /// An IP address, or one with a port.
    address: Option<String>,
    /// A conversation, in decimal or after `0x`.
    conv: Option<String>,
    /// The backend's name.
    backend: Option<String>,
    /// `rtt` or `queued`.
    sort: Option<String>,
    /// Sessions wanted.
    limit: Option<usize>,
    /// Where an earlier list ended.
    cursor: Option<String>,
}

/// A parameter that says nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is {found:?}; write {wanted}")]
pub(crate) struct BadParameter {
    name: &'static str,
    found: String,
    wanted: &'static str,
}

/// Why a shard gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AskError {
    /// It did not take the question.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// It took it and said nothing.
    #[error("shard {0} has not answered within {ANSWER_WITHIN:?}")]
    Silent(usize),
}

/// A list's parameters, understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    filter: Filter,
    order: Order,
    limit: usize,
    after: Option<Rank>,
}

/// One page of the list.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct List {
    sessions: Vec<Portrait>,
    /// The `cursor` of the next page, which may turn out empty; null when there is none.
    cursor: Option<Cursor>,
    /// Slots that the shards looked at.
    visited: u64,
}

/// The last session of a page, or in a list by slots the last slot looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor(Rank);

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Rank { value, shard, slot } = self.0;
        serializer.collect_str(&format_args!("{value}-{shard}-{slot}"))
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let parts: Vec<&str> = text.split('-').collect();
        let [value, shard, slot] = parts[..] else { return Err(()) };
        let number = |text: &str| text.parse().map_err(|_| ());
        let value = value.parse().map_err(|_| ())?;
        Ok(Self(Rank { value, shard: number(shard)?, slot: number(slot)? }))
    }
}

impl ListQuery {
    /// What is asked for.
    ///
    /// # Errors
    /// The first parameter that says nothing.
    pub(crate) fn understand(&self) -> Result<Wanted, BadParameter> {
        let mut wanted = Wanted::default();
        wanted.filter.backend.clone_from(&self.backend);
        if let Some(text) = &self.address {
            let address = text.parse::<SocketAddr>().map(|a| (a.ip(), Some(a.port())));
            let address = address.or_else(|_| text.parse::<IpAddr>().map(|ip| (ip, None)));
            let wants = "an IP address, with or without a port";
            let (ip, port) = address.map_err(|_| bad("address", text, wants))?;
            (wanted.filter.ip, wanted.filter.port) = (Some(ip), port);
        }
        if let Some(text) = &self.conv {
            let number = match text.strip_prefix("0x") {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => text.parse(),
            };
            let wants = "a number of 32 bits, in decimal or after 0x";
            wanted.filter.conv = Some(Conv(number.map_err(|_| bad("conv", text, wants))?));
        }
        wanted.order = match self.sort.as_deref() {
            None => Order::Slot,
            Some("rtt") => Order::Rtt,
            Some("queued") => Order::Queued,
            Some(other) => return Err(bad("sort", other, "rtt or queued, or leave it out")),
        };
        wanted.limit = self.limit.unwrap_or(LIMIT_DEFAULT);
        if !(1..=Scan::LIMIT_MAX).contains(&wanted.limit) {
            return Err(bad("limit", &wanted.limit.to_string(), "1 to 256"));
        }
        if let Some(text) = &self.cursor {
            let wants = "the cursor of the page before, unchanged";
            let cursor = text.parse::<Cursor>().map_err(|()| bad("cursor", text, wants))?;
            wanted.after = Some(cursor.0);
        }
        Ok(wanted)
    }
}

fn bad(name: &'static str, found: &str, wanted: &'static str) -> BadParameter {
    BadParameter { name, found: found.chars().take(80).collect(), wanted }
}

/// Asks shards about sessions. A list is made for one operator at a time: others wait, and shards never have more than one
/// question of a list before them.
#[derive(Debug)]
pub(crate) struct Census {
    one_list: Semaphore,
}

impl Census {
    pub(crate) fn new() -> Self {
        Self { one_list: Semaphore::new(1) }
    }

    /// A page of the list of all sessions.
    ///
    /// # Errors
    /// The first shard that gave no answer.
    pub(crate) async fn list(&self, plane: &Plane, wanted: &Wanted) -> Result<List, AskError> {
        // Never closed; without a permit the list would only be slower.
        let _permit = self.one_list.acquire().await.ok();
        let mut list = List { sessions: Vec::new(), cursor: None, visited: 0 };
        let found = match wanted.order {
            Order::Slot => by_slot(plane, wanted, &mut list.visited).await?,
            Order::Rtt | Order::Queued => by_value(plane, wanted, &mut list.visited).await?,
        };
        // A list by slots that was cut short goes on where it stopped, an ordered one after its last.
        list.cursor =
            found.cut.then(|| found.sessions.last().map(|(rank, _)| Cursor(*rank))).flatten();
        list.sessions = found.sessions.into_iter().map(|(_, portrait)| portrait).collect();
        Ok(list)
    }

    /// One session; `None` when there is none of this name, or no longer. Closes it when asked to.
    ///
    /// # Errors
    /// Its shard gave no answer.
    pub(crate) async fn one(
        &self,
        plane: &Plane,
        id: GlobalId,
        close: bool,
    ) -> Result<Option<Box<Portrait>>, AskError> {
        let shard = id.shard as usize;
        if shard >= plane.shards().len() {
            return Ok(None);
        }
        let question = if close { Question::Close(id.session) } else { Question::Look(id.session) };
        match ask(plane, shard, question).await? {
            Answer::Session(portrait) => Ok(portrait),
            Answer::Page(_) => Ok(None),
        }
    }
}

/// What a list found, and whether more stands behind it.
struct Found {
    sessions: Vec<(Rank, Portrait)>,
    cut: bool,
}

async fn by_slot(plane: &Plane, wanted: &Wanted, visited: &mut u64) -> Result<Found, AskError> {
    let mut sessions = Vec::new();
    let (first, mut from) = match wanted.after {
        Some(after) => (after.shard as usize, after.slot.saturating_add(1)),
        None => (0, 0),
    };
    for shard in first..plane.shards().len() {
        loop {
            let missing = wanted.limit - sessions.len();
            let page = scan(plane, shard, wanted, from, missing, None).await?;
            *visited += u64::from(page.visited);
            sessions.extend(page.sessions);
            if sessions.len() == wanted.limit {
                return Ok(Found { sessions, cut: true });
            }
            match page.next {
                Some(next) => from = next,
                None => break,
            }
        }
        from = 0;
    }
    Ok(Found { sessions, cut: false })
}

async fn by_value(plane: &Plane, wanted: &Wanted, visited: &mut u64) -> Result<Found, AskError> {
    let mut best: Vec<(Rank, Portrait)> = Vec::new();
    let mut cut = false;
    for shard in 0..plane.shards().len() {
        let mut next = Some(0);
        while let Some(from) = next {
            let worst = best.get(wanted.limit - 1).map(|(rank, _)| *rank);
            let page = scan(plane, shard, wanted, from, wanted.limit, worst).await?;
            *visited += u64::from(page.visited);
            best.extend(page.sessions);
            best.sort_by_key(|(rank, _)| *rank);
            cut |= worst.is_some() || best.len() > wanted.limit;
            best.truncate(wanted.limit);
            next = page.next;
        }
    }
    Ok(Found { sessions: best, cut })
}

async fn scan(
    plane: &Plane,
    shard: usize,
    wanted: &Wanted,
    from: u32,
    limit: usize,
    before: Option<Rank>,
) -> Result<Page, AskError> {
    let after = if wanted.order == Order::Slot { None } else { wanted.after };
    let (filter, order) = (wanted.filter.clone(), wanted.order);
    let question = Question::Scan(Scan { from, limit, filter, order, after, before });
    match ask(plane, shard, question).await? {
        Answer::Page(page) => Ok(page),
        Answer::Session(_) => Err(AskError::Silent(shard)),
    }
}

/// Asks one shard and waits for its answer.
pub(super) async fn ask(
    plane: &Plane,
    shard: usize,
    question: Question,
) -> Result<Answer, AskError> {
    let (reply, mut answer) = mpsc::channel(1);
    plane.tell(shard, ShardCommand::Sessions(Ask { question, reply }))?;
    let answer = timeout(ANSWER_WITHIN, answer.recv()).await;
    answer.ok().flatten().ok_or(AskError::Silent(shard))
}

impl Plane {
    /// Sends `command` to one shard and wakes it.
    fn tell(&self, index: usize, command: ShardCommand) -> Result<(), CommandError> {
        let shard = self.shards().get(index).ok_or(CommandError::Dead(index))?;
        let sent = shard.commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => CommandError::Stuck(index),
            TrySendError::Disconnected(_) => CommandError::Dead(index),
        });
        shard.waker.wake();
        sent
    }
}

const LIMIT_DEFAULT: usize = 50;
/// A shard answers in its next turn; one that needs this long hangs.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn understood(query: &str) -> Result<Wanted, BadParameter> {
        let uri = format!("/?{query}").parse().unwrap();
        axum::extract::Query::<ListQuery>::try_from_uri(&uri).unwrap().0.understand()
    }

    #[test]
    fn parameters_are_understood_or_named() {
        let wanted = understood("").unwrap();
        assert_eq!((wanted.order, wanted.limit, wanted.after), (Order::Slot, 50, None));
        let wanted =
            understood("address=10.0.0.1&conv=0xff&sort=rtt&limit=3&cursor=7-1-9").unwrap();
        let ip = Some(IpAddr::from([10, 0, 0, 1]));
        assert_eq!(wanted.filter, Filter { ip, conv: Some(Conv(255)), ..Filter::default() });
        assert_eq!((wanted.order, wanted.limit), (Order::Rtt, 3));
        assert_eq!(wanted.after, Some(Rank { value: 7, shard: 1, slot: 9 }));
        let wanted = understood("address=[::1]:5&conv=12").unwrap();
        assert_eq!((wanted.filter.port, wanted.filter.conv), (Some(5), Some(Conv(12))));
        for bad in
            ["address=here", "conv=-1", "conv=0x", "sort=age", "limit=0", "limit=257", "cursor=1-2"]
        {
            let error = understood(bad).unwrap_err();
            assert!(bad.starts_with(error.name) && !error.to_string().contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_cursor_is_its_text_again() {
        let cursor = Cursor(Rank { value: u64::MAX, shard: 3, slot: 9 });
        let text = serde_json::to_value(cursor).unwrap();
        assert_eq!(text, "18446744073709551615-3-9");
        assert_eq!(text.as_str().unwrap().parse(), Ok(cursor));
    }
}
