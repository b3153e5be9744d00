//! Who hears whom: rooms that fill in the order in which sessions arrive.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::behaviour::Rooms;

/// All rooms.
#[derive(Debug, Default)]
pub(super) struct Lobby {
    doors: Mutex<Doors>,
}

#[derive(Debug, Default)]
struct Doors {
    arrivals: u64,
    rooms: HashMap<u64, Arc<Room>>,
}

type Room = Mutex<Vec<(u64, Sender<Bytes>)>>;

/// A session's place in its room; leaving is dropping it.
#[derive(Debug)]
pub(super) struct Seat {
    lobby: Arc<Lobby>,
    room: Arc<Room>,
    number: u64,
    session: u64,
    /// What others, and the session itself, said: framed, ready to be sent.
    pub(super) heard: Receiver<Bytes>,
}

impl Lobby {
    /// A seat for session number `session` in the room that fills at the moment.
    pub(super) fn enter(self: &Arc<Self>, rooms: Rooms, session: u64) -> Seat {
        let (speak, heard) = mpsc::channel(rooms.queue);
        let (room, number) = {
            let mut doors = locked(&self.doors);
            let number = doors.arrivals / u64::from(rooms.size);
            doors.arrivals += 1;
            (Arc::clone(doors.rooms.entry(number).or_default()), number)
        };
        locked(&room).push((session, speak));
        Seat { lobby: Arc::clone(self), room, number, session, heard }
    }
}

impl Seat {
    /// Tells everybody in the room; how many it was not told, because too much waits for them.
    pub(super) fn tell(&self, message: &Bytes) -> usize {
        let room = locked(&self.room);
        room.iter().filter(|(_, member)| member.try_send(message.clone()).is_err()).count()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut doors = locked(&self.lobby.doors);
        let mut room = locked(&self.room);
        room.retain(|(session, _)| *session != self.session);
        if room.is_empty() {
            doors.rooms.remove(&self.number);
        }
    }
}

/// A session that panics leaves lists whole: each is changed by one call.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_hears_itself_and_no_other() {
        let lobby = Arc::new(Lobby::default());
        let rooms = Rooms { size: 2, queue: 1 };
        let [mut a, mut b, mut c] = [1, 2, 3].map(|session| lobby.enter(rooms, session));
        let said = Bytes::from_static(b"hello");
        assert_eq!(a.tell(&said), 0);
        assert_eq!(b.tell(&said), 2, "both have one waiting");
        assert_eq!(
            (a.heard.try_recv().unwrap(), b.heard.try_recv().unwrap()),
            (said.clone(), said)
        );
        c.heard.try_recv().unwrap_err();
        drop(a);
        assert_eq!(b.tell(&Bytes::from_static(b"alone")), 0);
        drop((b, c));
        assert!(locked(&lobby.doors).rooms.is_empty());
    }
}
