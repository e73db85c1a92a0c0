use super::*;
use crate::tune::settings::Axis;

fn present() -> Settings {
    Settings::new([2, 1, 5_000, 20_000, 5])
}

/// What a pipeline might do with such settings: the slowest of its stages, each with its own idea
/// of what is good for it, and something lost where they come close to one another.
#[derive(Debug)]
struct Landscape {
    source: f64,
    worker: f64,
    lane: f64,
    lanes_paid: f64,
    statement: f64,
    large_batch: f64,
    large_epoch: f64,
    cores: f64,
}

impl Landscape {
    fn draw(rng: &mut fastrand::Rng) -> Landscape {
        let mut between = |low: f64, high: f64| low + (high - low) * rng.f64();
        Landscape {
            source: between(80_000.0, 900_000.0),
            worker: between(50_000.0, 400_000.0),
            lane: between(15_000.0, 80_000.0),
            lanes_paid: between(0.3, 1.0),
            statement: between(100.0, 3_000.0),
            large_batch: between(20_000.0, 400_000.0),
            large_epoch: between(40_000.0, 400_000.0),
            cores: between(1.0, 6.0),
        }
    }

    fn rate(&self, settings: Settings) -> f64 {
        let value = |axis| f64::from(u32::try_from(settings.get(axis)).unwrap());
        let (workers, epoch) = (value(Axis::Workers), value(Axis::EpochRecords));
        let lanes = workers * value(Axis::Connections);
        let batch = value(Axis::BatchRows).min(epoch / lanes);
        let lane = self.lane * batch / (batch + self.statement) / (1.0 + batch / self.large_batch);
        let database = lane * lanes.powf(self.lanes_paid) / (1.0 + lanes / 32.0);
        let threads = self.worker * workers / (1.0 + (workers / self.cores).powi(2));
        let stages = [self.source, threads, database];
        // The smallest, rounded off.
        let together = stages.map(|rate| rate.powi(-6)).iter().sum::<f64>().powf(-1.0 / 6.0);
        together * epoch / (epoch + 1_500.0) / (1.0 + epoch / self.large_epoch)
    }
}

/// A draw around 1, as measurements lie: mostly close, now and then disturbed.
fn noise(rng: &mut fastrand::Rng, sigma: f64) -> f64 {
    let bell = (0..12).map(|_| rng.f64()).sum::<f64>() - 6.0;
    let disturbed = if rng.u8(..) < 8 { 0.7 } else { 1.0 };
    (1.0 + sigma * bell) * disturbed
}

/// Searches with a budget of so many trials.
fn search(landscape: &Landscape, grid: &Grid, trials: u32, exhaustive: bool, seed: u64) -> Search {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0xabcd);
    let mut search = Search::new(grid.clone(), present(), exhaustive, seed);
    for trial in 0..trials {
        let Some(settings) = search.next(f64::from(trial) / f64::from(trials)) else { break };
        search.note(settings, landscape.rate(settings) * noise(&mut rng, 0.015));
    }
    search
}

#[test]
fn what_is_chosen_is_close_to_the_best_of_the_grid() {
    let base: u64 = std::env::var("SEED").ok().and_then(|it| it.parse().ok()).unwrap_or(1);
    let (mut missed, mut worst) = (Vec::new(), 1.0_f64);
    let runs = 300;
    for seed in base..base + runs {
        let landscape = Landscape::draw(&mut fastrand::Rng::with_seed(seed));
        let grid = Grid::new(Default::default(), present(), 4, 200_000);
        let points = grid.points();
        let rates = points.iter().map(|point| landscape.rate(*point));
        let best = rates.fold(0.0, f64::max);
        let chosen = search(&landscape, &grid, 50, false, seed).choice().unwrap().chosen;
        let reached = landscape.rate(chosen) / best;
        worst = worst.min(reached);
        if reached < 0.95 {
            missed.push((seed, reached));
        }
    }
    println!("of {runs} landscapes from SEED={base} on, missed {}, worst {worst:.3}", missed.len());
    // 50 trials for 81 points, and one trial in thirty disturbed: now and then it is missed, never
    // by far.
    assert!(missed.len() <= 12, "of {runs} landscapes from SEED={base} on, missed {missed:?}");
    assert!(worst > 0.75, "{worst} from SEED={base} on");
}

#[test]
fn an_exhaustive_search_measures_every_point_several_times() {
    let landscape = Landscape::draw(&mut fastrand::Rng::with_seed(3));
    let lists = [vec![1, 2], vec![1, 2], vec![1_000, 5_000], vec![20_000], vec![]];
    let grid = Grid::new(lists, present(), 2, 200_000);
    let search = search(&landscape, &grid, 10_000, true, 3);
    let rates = search.rates();
    assert_eq!((rates.len(), search.unmeasured()), (8, 0));
    assert!(rates.values().all(|rates| rates.len() >= ROUNDS_MIN), "{rates:?}");
    let best = grid.points().into_iter().map(|point| landscape.rate(point)).fold(0.0, f64::max);
    assert!(landscape.rate(search.choice().unwrap().best) > 0.98 * best);
}

/// Plays a search with those rates, however often it asks.
fn play(rate: impl Fn(Settings, usize) -> f64) -> Search {
    let lists = [vec![1, 2, 4], vec![1, 2], vec![5_000], vec![20_000], vec![]];
    let mut search = Search::new(Grid::new(lists, present(), 4, 200_000), present(), false, 7);
    let mut trials = 0;
    while let Some(settings) = search.next(0.0) {
        search.note(settings, rate(settings, trials));
        trials += 1;
        assert!(trials < 1_000, "it does not end");
    }
    search
}

#[test]
fn of_what_is_as_fast_the_simplest_is_chosen_and_what_is_configured_before_all() {
    // Everything but one thread is the same, within a percent.
    let flat = |settings: Settings, trial: usize| match settings.get(Axis::Workers) {
        1 => 50.0,
        _ => 100.0 + [0.0, 0.5, 1.0][trial % 3],
    };
    let choice = play(flat).choice().unwrap();
    assert_eq!((choice.chosen, choice.is_certain), (present(), true));
    // Now what is configured is slower than the rest.
    let slow = |settings: Settings, trial: usize| {
        if settings == present() { 80.0 } else { flat(settings, trial) }
    };
    let choice = play(slow).choice().unwrap();
    assert_eq!(choice.chosen.get(Axis::Workers) * choice.chosen.get(Axis::Connections), 4);
    assert_ne!(choice.chosen, present());
}

#[test]
fn rates_that_never_settle_end_the_search_all_the_same_and_are_not_called_certain() {
    let wild = |_, trial: usize| [30.0, 300.0, 100.0, 500.0, 60.0][trial % 5];
    let choice = play(wild).choice().unwrap();
    assert!(!choice.is_certain && choice.uncertainty > CERTAIN, "{choice:?}");
}

#[test]
fn a_machine_that_becomes_slower_is_noticed() {
    let slower = |_, trial: usize| if trial < 6 { 100.0 } else { 70.0 };
    assert!((play(slower).drift().unwrap() + 0.3).abs() < 1e-9);
    assert_eq!(play(|_, _| 100.0).drift(), Some(0.0));
}

#[test]
fn with_few_trials_there_are_few_finalists() {
    assert_eq!([0.0, 0.6, 1.0].map(|used| finalists(60, used)), [FINALISTS, FINALISTS, 1]);
    // Of 10 trials there are 6 behind us: 4 are left, enough for one and what is configured, twice.
    assert_eq!(finalists(6, 0.6), 1);
    assert_eq!(finalists(14, 0.6), 2);
}

#[test]
fn a_budget_that_ends_early_leaves_a_choice_of_what_there_is() {
    let landscape = Landscape::draw(&mut fastrand::Rng::with_seed(5));
    let grid = Grid::new(Default::default(), present(), 2, 200_000);
    assert_eq!(search(&landscape, &grid, 0, false, 1).choice(), None);
    let one = search(&landscape, &grid, 1, false, 1);
    let choice = one.choice().unwrap();
    assert_eq!((choice.chosen, choice.is_certain), (present(), false));
    assert_eq!(one.unmeasured(), grid.points().len() - 1);
}

#[test]
fn the_order_is_drawn_and_the_same_for_the_same_seed() {
    let order = |seed| {
        let grid = Grid::new(Default::default(), present(), 4, 200_000);
        let mut search = Search::new(grid, present(), true, seed);
        (0..20).map(|_| search.next(0.0).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(order(1), order(1));
    assert_ne!(order(1), order(2));
}

#[test]
fn what_is_configured_is_measured_even_where_it_is_no_point_of_the_grid() {
    let lists = [vec![1], vec![3], vec![5_000], vec![20_000], vec![]];
    let mut search = Search::new(Grid::new(lists, present(), 4, 200_000), present(), false, 7);
    let mut seen = BTreeMap::new();
    while let Some(settings) = search.next(0.0) {
        *seen.entry(settings).or_insert(0) += 1;
        search.note(settings, 100.0);
    }
    assert_eq!(seen.len(), 2);
    assert!(seen[&present()] > ROUNDS_MIN, "{seen:?}");
    assert_eq!(search.unmeasured(), 0);
}
