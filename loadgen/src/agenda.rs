//! Which sessions have something to say at the end of a turn, and who comes first.
//!
//! A send takes this process two to three times as long as a receive does. When many echoes come at once, their acknowledgements
//! would keep the messages that are due waiting, and the next echoes, and the figures would show this process instead of the
//! target: so messages leave first, and acknowledgements a part at a time, the oldest first, or with their session's next message.

use std::collections::VecDeque;

/// What a session has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Word {
    /// Nothing.
    #[default]
    None,
    /// Acknowledgements.
    Ack,
    /// A message, or what a timer calls for.
    Message,
}

/// A session's place on the agenda.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    word: Word,
    /// On the list of those that acknowledge; it stays there when a message has taken the acknowledgements along.
    waits: bool,
}

impl Place {
    /// What it had to say is being said.
    pub(crate) const fn clear(&mut self) {
        self.word = Word::None;
    }
}

/// Sessions to flush, each on either list once at most.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    messages: Vec<u32>,
    acks: VecDeque<u32>,
}

impl Agenda {
    /// Session `local`, whose place is `place`, has something to say.
    pub(crate) fn note(&mut self, local: u32, place: &mut Place, word: Word) {
        match (place.word, word) {
            (_, Word::None) | (Word::Message, _) | (Word::Ack, Word::Ack) => return,
            (Word::None | Word::Ack, Word::Message) => self.messages.push(local),
            (Word::None, Word::Ack) if place.waits => {}
            (Word::None, Word::Ack) => {
                place.waits = true;
                self.acks.push_back(local);
            }
        }
        place.word = word;
    }

    /// Those that have more to say than acknowledgements.
    pub(crate) fn take_messages(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.messages)
    }

    /// Gives the list back, for its memory.
    pub(crate) fn give_back(&mut self, mut messages: Vec<u32>) {
        if self.messages.is_empty() {
            messages.clear();
            self.messages = messages;
        }
    }

    /// How many acknowledge in this turn: so many that the last of a crowd wait a few turns, not more.
    pub(crate) fn acks_due(&self) -> usize {
        (self.acks.len() / 4).max(ACKS_MIN)
    }

    /// The next that waits to acknowledge. Where `place` says that it has done so, nothing is left to do.
    pub(crate) fn pop_ack(&mut self) -> Option<u32> {
        self.acks.pop_front()
    }

    /// Whether sessions wait for the next turn.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.acks.is_empty()
    }
}

impl Place {
    /// It has left the list of those that acknowledge; whether it still has to.
    pub(crate) fn leave(&mut self) -> bool {
        self.waits = false;
        self.word == Word::Ack
    }
}

/// Acknowledgements of a turn in any case: about 100 us.
const ACKS_MIN: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said in one turn: messages, then acknowledgements.
    fn turn(agenda: &mut Agenda, places: &mut [Place]) -> (Vec<u32>, Vec<u32>) {
        let messages = agenda.take_messages();
        messages.iter().for_each(|&local| places[local as usize].clear());
        agenda.give_back(messages.clone());
        let mut acks = Vec::new();
        for _ in 0..agenda.acks_due() {
            let Some(local) = agenda.pop_ack() else { break };
            if places[local as usize].leave() {
                places[local as usize].clear();
                acks.push(local);
            }
        }
        (messages, acks)
    }

    #[test]
    fn a_message_goes_first_and_takes_its_sessions_acknowledgements_along() {
        let (mut agenda, mut places) = (Agenda::default(), [Place::default(); 4]);
        for (local, word) in [
            (0, Word::Ack),
            (1, Word::Ack),
            (2, Word::Message),
            (1, Word::Message),
            (1, Word::Ack),
            (0, Word::Ack),
            (3, Word::None),
        ] {
            agenda.note(local, &mut places[local as usize], word);
        }
        assert_eq!(turn(&mut agenda, &mut places), (vec![2, 1], vec![0]));
        assert!(!agenda.is_waiting());
        assert_eq!(turn(&mut agenda, &mut places), (vec![], vec![]));
    }

    #[test]
    fn a_crowd_acknowledges_in_order_within_a_few_turns() {
        const CROWD: u32 = 1000;
        let (mut agenda, mut places) = (Agenda::default(), [Place::default(); CROWD as usize]);
        for local in 0..CROWD {
            agenda.note(local, &mut places[local as usize], Word::Ack);
        }
        let (mut all, mut turns) = (Vec::new(), 0);
        while agenda.is_waiting() {
            let (_, acks) = turn(&mut agenda, &mut places);
            assert!(acks.len() >= ACKS_MIN || !agenda.is_waiting());
            all.extend(acks);
            turns += 1;
            // Session 999 has more to acknowledge all the time: that gives it one place, not many.
            agenda.note(CROWD - 1, &mut places[CROWD as usize - 1], Word::Ack);
            if all.len() == CROWD as usize {
                break;
            }
        }
        assert!(all.iter().copied().eq(0..CROWD), "{all:?}");
        assert!(turns <= 12, "{turns} turns");
    }

    /// Whoever said it with a message keeps its place, and so is never on the list twice.
    #[test]
    fn the_list_has_no_more_entries_than_sessions() {
        let (mut agenda, mut places) = (Agenda::default(), [Place::default(); 100]);
        for local in (0..100).cycle().take(10_000) {
            agenda.note(local, &mut places[local as usize], Word::Ack);
            if local % 3 == 0 {
                agenda.note(local, &mut places[local as usize], Word::Message);
                for said in agenda.take_messages() {
                    places[said as usize].clear();
                }
            }
            assert!(agenda.acks.len() <= 100);
        }
    }
}
