//! What is swept: a point is one choice of everything, the grid is what each may be.

use std::fmt;

use crate::config::{Config, Run};
use crate::report::grouped;

/// One choice of everything that is swept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Settings {
    /// The values, in the order of [`Axis::ALL`].
    values: [usize; Axis::ALL.len()],
}

/// Something that is swept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Axis {
    /// `run.workers`
    Workers,
    /// `database.connections`, of each worker.
    Connections,
    /// `database.batch_rows`
    BatchRows,
    /// `run.epoch_records`
    EpochRecords,
    /// `run.linger_ms`
    LingerMs,
}

impl Axis {
    /// All of them, in the order of the table.
    pub const ALL: [Axis; 5] =
        [Axis::Workers, Axis::Connections, Axis::BatchRows, Axis::EpochRecords, Axis::LingerMs];

    /// Section and key in the configuration.
    pub fn key(self) -> (&'static str, &'static str) {
        match self {
            Axis::Workers => ("run", "workers"),
            Axis::Connections => ("database", "connections"),
            Axis::BatchRows => ("database", "batch_rows"),
            Axis::EpochRecords => ("run", "epoch_records"),
            Axis::LingerMs => ("run", "linger_ms"),
        }
    }

    /// The head of its column.
    pub fn title(self) -> &'static str {
        match self {
            Axis::Workers => "workers",
            Axis::Connections => "connections",
            Axis::BatchRows => "batch rows",
            Axis::EpochRecords => "epoch records",
            Axis::LingerMs => "linger ms",
        }
    }

    fn place(self) -> usize {
        Axis::ALL.iter().position(|axis| *axis == self).expect("ALL has all of them")
    }
}

impl Settings {
    /// What the configuration says.
    pub fn of(config: &Config) -> Settings {
        let Run { workers, epoch_records, linger, .. } = config.run;
        let linger_ms = usize::try_from(linger.as_millis()).unwrap_or(usize::MAX);
        let database = &config.database;
        Settings {
            values: [workers, database.connections, database.batch_rows, epoch_records, linger_ms],
        }
    }

    /// Such settings.
    pub fn new(values: [usize; Axis::ALL.len()]) -> Settings {
        Settings { values }
    }

    /// The value of one axis.
    pub fn get(&self, axis: Axis) -> usize {
        self.values[axis.place()]
    }

    /// The same but for one axis.
    pub fn with(mut self, axis: Axis, value: usize) -> Settings {
        self.values[axis.place()] = value;
        self
    }

    /// The connections of all workers.
    pub fn connections(&self) -> usize {
        self.get(Axis::Workers).saturating_mul(self.get(Axis::Connections))
    }

    /// The configuration with these settings.
    pub fn apply(&self, config: &Config) -> Config {
        let [workers, connections, batch_rows, epoch_records, linger_ms] = self.values;
        let mut config = config.clone();
        config.run.workers = workers;
        config.run.epoch_records = epoch_records;
        let linger_ms = u64::try_from(linger_ms).unwrap_or(u64::MAX);
        config.run.linger = std::time::Duration::from_millis(linger_ms);
        config.database.connections = connections;
        config.database.batch_rows = batch_rows;
        config
    }

    /// What is simpler comes first: fewer sessions on the server, fewer threads, smaller epochs
    /// (which a stop waits for), smaller batches (which hold their locks).
    pub fn effort(&self) -> impl Ord + use<> {
        let [workers, connections, batch_rows, epoch_records, linger_ms] = self.values;
        (workers * connections, workers, epoch_records, batch_rows, linger_ms)
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [workers, connections, batch_rows, epoch_records, linger_ms] = self.values;
        let count = |count: usize| grouped(u64::try_from(count).unwrap_or(u64::MAX));
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        write!(
            f,
            "{workers} worker{}, {connections} connection{}, batches of {}, epochs of {}, linger {linger_ms} ms",
            plural(workers),
            plural(connections),
            count(batch_rows),
            count(epoch_records),
        )
    }
}

/// What each axis may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grid {
    /// The values, ascending, each once, in the order of [`Axis::ALL`]. None is empty.
    values: [Vec<usize>; Axis::ALL.len()],
}

/// The workers that are tried are 1, 2, 4 and so on, and one for each core: at most so many values.
const WORKERS_TRIED_MAX: usize = 256;

impl Grid {
    /// The grid of these lists; of one that is empty, what is usual for so many cores and trials of
    /// so many records.
    pub fn new(
        lists: [Vec<usize>; Axis::ALL.len()],
        present: Settings,
        cores: usize,
        records: u64,
    ) -> Grid {
        let mut values = lists;
        for axis in Axis::ALL {
            let values = &mut values[axis.place()];
            if values.is_empty() {
                *values = usual(axis, cores, records);
                values.push(present.get(axis));
            }
            values.sort_unstable();
            values.dedup();
        }
        Grid { values }
    }

    /// What one axis may be.
    pub fn along(&self, axis: Axis) -> &[usize] {
        &self.values[axis.place()]
    }

    /// The axes that have a choice.
    pub fn open(&self) -> Vec<Axis> {
        Axis::ALL.into_iter().filter(|axis| self.along(*axis).len() > 1).collect()
    }

    /// The most connections that a point has, over all workers.
    pub fn connections_max(&self) -> usize {
        [Axis::Workers, Axis::Connections]
            .into_iter()
            .filter_map(|it| self.along(it).last())
            .product()
    }

    /// Leaves out what needs more connections than that, as long as there is a choice. Returns the
    /// values that are left out, first of the connections of each worker.
    pub fn fit(&mut self, connections: usize) -> Vec<(Axis, usize)> {
        let mut left_out = Vec::new();
        while self.connections_max() > connections {
            let mut open = [Axis::Connections, Axis::Workers].into_iter();
            let Some(axis) = open.find(|axis| self.along(*axis).len() > 1) else { break };
            left_out.extend(self.values[axis.place()].pop().map(|value| (axis, value)));
        }
        left_out
    }

    /// What points are compared with: what is configured, or the closest of them where that needs
    /// more connections.
    pub fn baseline(&self, present: Settings, connections: usize) -> Settings {
        if present.connections() > connections { self.nearest(present) } else { present }
    }

    /// Every point.
    pub fn points(&self) -> Vec<Settings> {
        let mut points = vec![Settings { values: [0; Axis::ALL.len()] }];
        for axis in Axis::ALL {
            let with =
                |point: Settings| self.along(axis).iter().map(move |it| point.with(axis, *it));
            points = points.into_iter().flat_map(with).collect();
        }
        points
    }

    /// Whether two points are at most one step from each other on every axis.
    pub fn is_beside(&self, one: Settings, other: Settings) -> bool {
        let step = |axis: Axis, point: Settings| {
            self.along(axis).iter().position(|value| *value == point.get(axis))
        };
        Axis::ALL.into_iter().all(|axis| match (step(axis, one), step(axis, other)) {
            (Some(one), Some(other)) => one.abs_diff(other) <= 1,
            _ => false,
        })
    }

    /// The point that is closest.
    pub fn nearest(&self, to: Settings) -> Settings {
        Axis::ALL.into_iter().fold(to, |point, axis| {
            let wanted = to.get(axis);
            let nearest = self.along(axis).iter().min_by_key(|value| value.abs_diff(wanted));
            point.with(axis, *nearest.expect("no axis is empty"))
        })
    }
}

/// Of how many epochs a trial must have room to say anything about their size: of fewer, what is
/// measured is their beginning and end.
pub const EPOCHS_MIN: usize = 4;

/// What is tried along an axis when nobody says, besides what is configured.
///
/// Epochs in bulk close by their size: the linger, which decides how long an event waits when it is
/// quiet, changes nothing there.
fn usual(axis: Axis, cores: usize, records: u64) -> Vec<usize> {
    match axis {
        Axis::Workers => {
            let cores = cores.clamp(1, WORKERS_TRIED_MAX);
            let powers = std::iter::successors(Some(1), |workers| Some(2 * workers));
            powers.take_while(|workers| *workers < cores).chain([cores]).collect()
        }
        Axis::Connections => vec![1, 2, 4],
        Axis::BatchRows => vec![1_000, 5_000, 20_000],
        Axis::EpochRecords => {
            let most = usize::try_from(records).unwrap_or(usize::MAX) / EPOCHS_MIN;
            [10_000, 20_000, 40_000].into_iter().filter(|size| *size <= most).collect()
        }
        Axis::LingerMs => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present() -> Settings {
        Settings::new([2, 1, 5_000, 20_000, 5])
    }

    #[test]
    fn without_lists_the_usual_is_tried_and_what_is_configured() {
        let present = present().with(Axis::BatchRows, 7_000);
        let grid = Grid::new(Default::default(), present, 6, 160_000);
        assert_eq!(grid.along(Axis::Workers), [1, 2, 4, 6]);
        assert_eq!(grid.along(Axis::BatchRows), [1_000, 5_000, 7_000, 20_000]);
        assert_eq!(grid.along(Axis::LingerMs), [5]);
        assert_eq!(grid.points().len(), 4 * 3 * 4 * 3);
        assert!(grid.points().contains(&present));
        let few = Grid::new(Default::default(), present, 6, 50_000);
        assert_eq!(few.along(Axis::EpochRecords), [10_000, 20_000], "what is configured stays");
    }

    #[test]
    fn lists_are_taken_as_they_are_sorted_and_each_value_once() {
        let lists = [vec![4, 1, 4], vec![], vec![9], vec![], vec![]];
        let grid = Grid::new(lists, present(), 2, 200_000);
        assert_eq!(
            (grid.along(Axis::Workers), grid.along(Axis::BatchRows)),
            (&[1, 4][..], &[9][..])
        );
        assert_eq!(grid.open(), [Axis::Workers, Axis::Connections, Axis::EpochRecords]);
        let nearest = grid.nearest(present());
        assert!(grid.points().contains(&nearest));
        assert_eq!((nearest.get(Axis::Workers), nearest.get(Axis::BatchRows)), (1, 9));
    }

    #[test]
    fn what_needs_more_connections_than_there_are_is_left_out_as_long_as_there_is_a_choice() {
        let fitted = |connections| {
            let mut grid = Grid::new(Default::default(), present(), 6, 200_000);
            let left_out = grid.fit(connections);
            (left_out, grid.connections_max())
        };
        let [by_4, by_2] = [4, 2].map(|it| (Axis::Connections, it));
        assert_eq!(fitted(24), (vec![], 24));
        assert_eq!(fitted(23), (vec![by_4], 12));
        assert_eq!(fitted(5), (vec![by_4, by_2, (Axis::Workers, 6)], 4));
        assert_eq!(fitted(0).1, 1);
    }

    #[test]
    fn what_is_configured_is_compared_with_unless_it_needs_more_connections_than_there_are() {
        let present = present().with(Axis::Connections, 8).with(Axis::BatchRows, 7_000);
        let mut grid = Grid::new([vec![1, 2], vec![], vec![900], vec![], vec![]], present, 2, 0);
        assert_eq!(grid.baseline(present, 16), present, "it need not be a point of the grid");
        grid.fit(15);
        let baseline = grid.baseline(present, 15);
        assert!(grid.points().contains(&baseline), "{baseline}");
        assert_eq!(baseline.connections(), 8);
    }

    #[test]
    fn settings_become_the_configuration_that_they_came_from() {
        let settings = Settings::new([3, 5, 700, 11_000, 13]);
        assert_eq!(Settings::of(&settings.apply(&Config::default())), settings);
        assert_eq!(
            settings.to_string(),
            "3 workers, 5 connections, batches of 700, epochs of 11,000, linger 13 ms"
        );
    }
}
