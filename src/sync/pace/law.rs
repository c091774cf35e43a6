//! How fast to go, from how loaded the ends are: fall by half, rise by a quarter. Pure.

/// The slowest: something always moves.
pub const FLOOR: f64 = 1.0 / 32.0;

/// What a fall leaves of the pace.
const FALL: f64 = 0.5;

/// How a step of the rise changes the pace: a part of it, so that a low pace is left as carefully as a high one.
const RISE: f64 = 1.25;

/// Below this part of the limit the pace rises; between this and the limit it stays.
const CALM: f64 = 0.8;

/// A load that is at most this part of the one before goes down by itself: a backlog takes its time.
const RECEDING: f64 = 0.998;

/// The pace of something that loads an end: 1 is full speed. Told the load again and again, about once a second.
#[derive(Clone, Copy, Debug)]
pub struct Law {
    pace: f64,
    before: f64,
    fell: bool,
}

impl Default for Law {
    fn default() -> Self {
        Self { pace: 1.0, before: 0.0, fell: false }
    }
}

impl Law {
    /// What it is now.
    pub fn pace(&self) -> f64 {
        self.pace
    }

    /// Whether anything is held back.
    pub fn acts(&self) -> bool {
        self.pace < 1.0
    }

    /// What it is from now on. `load` is what was measured as a part of its limit; none leaves everything as it is.
    /// After a fall one look passes: what was on its way still counts.
    pub fn observe(&mut self, load: Option<f64>) -> f64 {
        let Some(load) = load.filter(|load| !load.is_nan()) else { return self.pace };
        let recedes = load <= self.before * RECEDING;
        let fell = std::mem::take(&mut self.fell);
        if load > 1.0 {
            if !recedes && !fell {
                self.pace = (self.pace * FALL).max(FLOOR);
                self.fell = true;
            }
        } else if load < CALM {
            self.pace = (self.pace * RISE).min(1.0);
        }
        self.before = load;
        self.pace
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Looks from full speed to the slowest, and back.
    const DOWN: usize = 10;
    const UP: usize = 16;

    fn any_load() -> impl Strategy<Value = Option<f64>> {
        prop_oneof![
            Just(None),
            Just(Some(f64::NAN)),
            Just(Some(f64::INFINITY)),
            (0.0..3.0_f64).prop_map(Some),
            any::<f64>().prop_map(Some),
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_measured_something_moves(loads in prop::collection::vec(any_load(), 0..200)) {
            let mut law = Law::default();
            for load in loads {
                let before = law.pace();
                let pace = law.observe(load);
                prop_assert!((FLOOR..=1.0).contains(&pace), "{pace}");
                match load {
                    Some(load) if load > 1.0 => prop_assert!(pace <= before && pace >= before * FALL),
                    Some(load) if load < CALM => prop_assert!(pace >= before && pace <= before * RISE),
                    _ => prop_assert!((pace - before).abs() < f64::EPSILON),
                }
            }
        }

        #[test]
        fn a_calm_end_has_full_speed_soon(
            loads in prop::collection::vec(any_load(), 0..50),
            calm in 0.0..CALM,
        ) {
            let mut law = Law::default();
            for load in loads {
                law.observe(load);
            }
            for _ in 0..UP {
                law.observe(Some(calm));
            }
            prop_assert!(!law.acts(), "{}", law.pace());
        }

        #[test]
        fn an_end_that_stays_loaded_is_left_alone(load in 1.01..100.0_f64) {
            let mut law = Law::default();
            for _ in 0..DOWN {
                law.observe(Some(load));
            }
            prop_assert!((law.pace() - FLOOR).abs() < f64::EPSILON, "{}", law.pace());
        }

        /// An end whose answers take the longer the more of it is used, by others and by us.
        #[test]
        fn latency_is_held_at_its_limit_and_most_of_what_it_allows_is_used(
            others in 0.0..0.6_f64,
            ours in 0.2..2.0_f64,
            limit in 2.0..20.0_f64,
            noise in prop::collection::vec(0.9..1.1_f64, 400),
        ) {
            // Idle answers take 1, and 1 / (1 - use) else: the limit allows a use of 1 - 1 / limit.
            let allowed = (((1.0 - 1.0 / limit) - others) / ours).min(1.0);
            prop_assume!(allowed > 2.0 * FLOOR);
            let (mut law, mut paces, mut over) = (Law::default(), 0.0, 0);
            for (number, noise) in noise.iter().enumerate() {
                let used = (others + ours * law.pace()).min(0.999);
                let latency = noise / (1.0 - used);
                let pace = law.observe(Some(latency / limit));
                if number >= 100 {
                    paces += pace / 300.0;
                    over += usize::from(latency > limit);
                }
            }
            // At this use even a long answer is a calm one, and the pace rises.
            let certain = (((1.0 - 1.1 / (limit * CALM)) - others) / ours).min(1.0);
            prop_assert!(paces > certain * 0.5, "{paces} of {certain}");
            prop_assert!(over < 150, "{over} of 300 looks above the limit");
        }

        /// A member that applies less than what comes: its lag grows by the difference.
        #[test]
        fn lag_stays_in_bounds_and_what_a_member_can_do_is_used(
            able in 0.1..2.0_f64,
            limit in 2.0..60.0_f64,
        ) {
            let (mut law, mut paces, mut behind, mut highest) = (Law::default(), 0.0, 0.0_f64, 0.0_f64);
            for number in 0..2_000 {
                behind = (behind + law.pace() / able - 1.0).max(0.0);
                let pace = law.observe(Some(behind / limit));
                highest = highest.max(behind);
                if number >= 200 {
                    paces += pace / 1_800.0;
                }
            }
            prop_assert!(paces > able.min(1.0) * 0.5, "{paces} of {able}");
            prop_assert!(highest < limit + 30.0 / able, "{highest} s with a limit of {limit}");
        }
    }

    #[test]
    fn what_recedes_is_given_its_time() {
        let mut law = Law::default();
        law.observe(Some(5.0));
        let fallen = law.pace();
        for load in [4.9, 4.8, 3.0, 2.0, 1.1, 1.0, 0.9, 0.85] {
            assert!((law.observe(Some(load)) - fallen).abs() < f64::EPSILON, "{load}");
        }
        assert!(law.observe(Some(0.7)) > fallen);
    }
}
