//! Which sessions there are, and which rooms they are in.

use std::collections::HashMap;

use crate::session::SessionId;
use crate::upstream::nats::subject::Name;

/// All sessions that the engine has told of, and their rooms. Nothing here outlives its session.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    /// The rooms of each session.
    sessions: HashMap<Name, Vec<Membership>>,
    /// Who is in each room, by shard.
    members: HashMap<Box<str>, Vec<Vec<SessionId>>>,
    memberships: usize,
}

/// A session in a room.
#[derive(Debug)]
struct Membership {
    room: Box<str>,
    /// Its place among the room's members of its shard: a full lobby that empties must not be searched for each who leaves.
    at: usize,
}

/// A session does not join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JoinError {
    /// There is no such session.
    NoSession,
    /// It is in as many rooms as one may be in, or all together are.
    Limit,
}

impl Rooms {
    /// A session began.
    pub(super) fn open(&mut self, name: Name) {
        self.sessions.entry(name).or_default();
    }

    /// A session ended: it leaves all its rooms.
    pub(super) fn close(&mut self, name: Name) {
        for membership in self.sessions.remove(&name).unwrap_or_default() {
            self.remove(name, &membership);
        }
    }

    pub(super) fn has(&self, name: Name) -> bool {
        self.sessions.contains_key(&name)
    }

    /// A session joins a room; in one that it is in already it stays once.
    pub(super) fn join(&mut self, name: Name, room: &str) -> Result<(), JoinError> {
        let rooms = self.sessions.get_mut(&name).ok_or(JoinError::NoSession)?;
        if rooms.iter().any(|known| *known.room == *room) {
            return Ok(());
        }
        if rooms.len() >= ROOMS_OF_SESSION_MAX || self.memberships >= MEMBERSHIPS_MAX {
            return Err(JoinError::Limit);
        }
        let shards = self.members.entry(room.into()).or_default();
        let shard = usize::from(name.shard);
        if shards.len() <= shard {
            shards.resize_with(shard + 1, Vec::new);
        }
        rooms.push(Membership { room: room.into(), at: shards[shard].len() });
        shards[shard].push(name.id);
        self.memberships += 1;
        Ok(())
    }

    /// A session leaves a room, if it is in it.
    pub(super) fn leave(&mut self, name: Name, room: &str) {
        let Some(rooms) = self.sessions.get_mut(&name) else { return };
        if let Some(place) = rooms.iter().position(|known| *known.room == *room) {
            let membership = rooms.swap_remove(place);
            self.remove(name, &membership);
        }
    }

    /// Who is in a room: the members of each shard that has some.
    pub(super) fn members(&self, room: &str) -> impl Iterator<Item = (usize, &[SessionId])> {
        let shards = self.members.get(room).into_iter().flatten().enumerate();
        shards.filter(|(_, members)| !members.is_empty()).map(|(shard, ids)| (shard, &ids[..]))
    }

    /// Rooms with members, and memberships.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.members.len(), self.memberships)
    }

    /// Takes out what the session itself does not know of any more.
    fn remove(&mut self, name: Name, gone: &Membership) {
        let Some(shards) = self.members.get_mut(&gone.room) else { return };
        let members = &mut shards[usize::from(name.shard)];
        members.swap_remove(gone.at);
        self.memberships -= 1;
        if let Some(moved) = members.get(gone.at) {
            let moved = self.sessions.get_mut(&Name { id: *moved, ..name }).into_iter().flatten();
            moved.filter(|one| one.room == gone.room).for_each(|one| one.at = gone.at);
        }
        if shards.iter().all(Vec::is_empty) {
            self.members.remove(&gone.room);
        }
    }
}

/// What a backend needs for a world, a team, a party and a few channels, several times over.
const ROOMS_OF_SESSION_MAX: usize = 32;
/// About 100 bytes each.
const MEMBERSHIPS_MAX: usize = 4_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// Sessions by number, on two shards.
    fn name(n: u32) -> Name {
        Name { shard: u16::from(n % 2 == 1), id: SessionId { index: n, generation: 0 } }
    }

    fn members(rooms: &Rooms, room: &str) -> Vec<u32> {
        let all = rooms.members(room).flat_map(|(shard, ids)| {
            assert!(ids.iter().all(|id| usize::from(name(id.index).shard) == shard));
            ids.iter().map(|id| id.index)
        });
        let mut all: Vec<_> = all.collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn a_room_is_there_while_somebody_is_in_it() {
        let mut rooms = Rooms::default();
        assert_eq!(rooms.join(name(1), "a"), Err(JoinError::NoSession));
        for index in [1, 2] {
            rooms.open(name(index));
            rooms.join(name(index), "a").unwrap();
            rooms.join(name(index), "a").unwrap();
        }
        rooms.join(name(2), "b").unwrap();
        assert_eq!((members(&rooms, "a"), rooms.counts()), (vec![1, 2], (2, 3)));
        rooms.leave(name(1), "a");
        rooms.leave(name(1), "b");
        assert_eq!((members(&rooms, "a"), rooms.counts()), (vec![2], (2, 2)));
        rooms.close(name(2));
        assert_eq!((members(&rooms, "a"), rooms.counts()), (vec![], (0, 0)));
        assert!(rooms.has(name(1)) && !rooms.has(name(2)));
    }

    #[test]
    fn whoever_leaves_nobody_else_does() {
        let mut rooms = Rooms::default();
        for index in 0..20 {
            rooms.open(name(index));
            for room in ["a", "b"] {
                rooms.join(name(index), room).unwrap();
            }
        }
        let mut left: Vec<_> = (0..20).collect();
        for index in [0, 18, 1, 19, 7, 6, 8] {
            rooms.leave(name(index), "a");
            left.retain(|one| *one != index);
            assert_eq!(members(&rooms, "a"), left);
        }
        assert_eq!(members(&rooms, "b"), Vec::from_iter(0..20));
        for index in 0..20 {
            rooms.close(name(index));
        }
        assert_eq!(rooms.counts(), (0, 0));
    }

    #[test]
    fn a_session_is_in_so_many_rooms_and_no_more() {
        let mut rooms = Rooms::default();
        rooms.open(name(1));
        for n in 0..ROOMS_OF_SESSION_MAX {
            rooms.join(name(1), &n.to_string()).unwrap();
        }
        assert_eq!(rooms.join(name(1), "more"), Err(JoinError::Limit));
        rooms.leave(name(1), "0");
        rooms.join(name(1), "more").unwrap();
    }
}
