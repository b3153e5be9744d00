//! The same operations on this crate and on the C reference, everything visible compared after each.

use std::collections::VecDeque;

use crate::lockstep::Lockstep;
use crate::script::Script;

/// The first bytes choose starting numbers, the rest are operations on two ends and the datagrams between them.
pub(crate) fn run(input: &[u8]) {
    let mut script = Script::new(input);
    let numbers = [script.start(), script.start()];
    let mut world = World {
        ends: [
            Lockstep::new(CONV, numbers[0], numbers[1], false),
            Lockstep::new(CONV, numbers[1], numbers[0], false),
        ],
        wires: Default::default(),
        now: script.start(),
    };
    while !script.is_over() {
        world.operate(&mut script);
    }
}

struct World {
    ends: [Lockstep; 2],
    /// `wires[i]` leads to end `i`.
    wires: [VecDeque<Vec<u8>>; 2],
    now: u32,
}

impl World {
    fn operate(&mut self, script: &mut Script<'_>) {
        let choice = script.byte();
        let at = usize::from(choice >> 7);
        match choice & 0x7f {
            0..32 => {
                self.now = self.now.wrapping_add(script.below(200));
                self.update(at);
            }
            32 => self.now = self.now.wrapping_add(script.u16().into()),
            33 => self.now = self.now.wrapping_sub(script.u16().into()),
            34..52 => self.send(at, script),
            52..64 => drop(self.ends[at].recv(if script.flag() { 70_000 } else { 20 })),
            64 => self.ends[at].peek(script.u16().into()),
            65..92 => {
                if let Some(datagram) = self.wires[at].pop_front() {
                    self.ends[at].input(&datagram);
                }
            }
            92..96 => drop(self.wires[at].pop_front()),
            96..100 => self.wires[at].rotate_left(usize::from(self.wires[at].len() > 1)),
            100..104 => {
                if let Some(datagram) = self.wires[at].front() {
                    let copy = datagram.clone();
                    self.ends[at].input(&copy);
                }
            }
            104..108 => {
                let len = usize::from(script.byte());
                let forged = [&CONV.to_le_bytes(), script.bytes(len)].concat();
                self.ends[at].input(&forged);
            }
            108..112 => {
                let (place, bits) = (usize::from(script.u16()), script.byte());
                if let Some(datagram) = self.wires[at].front_mut() {
                    let len = datagram.len().max(1);
                    datagram.iter_mut().skip(place % len).take(1).for_each(|byte| *byte ^= bits);
                }
            }
            112..116 => {
                self.ends[at].flush();
                self.transmit(at);
            }
            116 => self.ends[at].set_mtu(50 + script.below(1_450)),
            117..120 => self.windows(at, script),
            120..124 => self.mode(at, script),
            _ => self.ends[at].compare_check(self.now.wrapping_add(script.byte().into())),
        }
    }

    fn update(&mut self, at: usize) {
        self.ends[at].update(self.now);
        self.ends[at].compare_check(self.now);
        self.transmit(at);
    }

    fn transmit(&mut self, at: usize) {
        let sent = std::mem::take(&mut self.ends[at].sent);
        let wire = &mut self.wires[1 - at];
        let room = WIRE_MAX.saturating_sub(wire.len());
        wire.extend(sent.into_iter().take(room));
    }

    fn send(&mut self, at: usize, script: &mut Script<'_>) {
        let len = match script.byte() {
            0..200 => script.below(60),
            200..250 => script.below(4_000),
            // 127 fragments at a small mtu are the most.
            _ => script.u16().into(),
        };
        if self.ends[at].wait_snd() < 400 {
            self.ends[at].send(&vec![script.byte(); len as usize]);
        }
    }

    fn windows(&mut self, at: usize, script: &mut Script<'_>) {
        self.ends[at].wndsize(1 + script.below(300), 1 + script.below(300));
        if script.flag() {
            self.ends[at].poke_rcv_wnd(script.below(10));
        }
    }

    fn mode(&mut self, at: usize, script: &mut Script<'_>) {
        let end = &mut self.ends[at];
        end.nodelay(script.below(3), script.below(120), script.below(4), script.flag());
        end.poke_fastlimit(script.below(7));
        end.poke_dead_link(1 + script.below(24));
        end.poke_stream(script.flag());
    }
}

const CONV: u32 = 0x0DDB_A115;
const WIRE_MAX: usize = 64;
