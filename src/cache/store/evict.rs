//! Eviction: keeps a store within its limits, the least recently used first.
//!
//! A sweep walks over the outputs once and counts how much was last used when, which says
//! how old is too old. Then it takes the outputs in batches: those that are to go, or that
//! nothing names, are found by a walk over the outputs of the batch and one over all
//! actions; each of them goes, together with the actions that name it, under the lock of
//! its shard and after a second look. So memory is bounded by the batch, whatever the size
//! of the store, and a put or a get that comes between is never undone.
//!
//! An output that has a second name is in the directory of a live build. It stays, for its
//! removal would free nothing.

use super::crash_state::Size;
use super::walk::ALL;
use super::{Store, modified, size_on_disk};
use crate::config::{
    ACTION_USE_RECORDED_EVERY, EVICT_TO_PERCENT, MAX_AGE, MAX_SIZE, MIN_FREE_FILES_MAX,
    MIN_FREE_LEAST_MAX, MIN_FREE_LEAST_PART, MIN_FREE_MAX, MIN_FREE_PART, USE_RECORDED_EVERY,
};
use crate::entry::Entry;
use crate::error::Result;
use crate::fs;
use crate::id::{ActionId, ID_LEN, OutputId};
use crate::log;
use crate::report::{Contents, Swept};
use crate::sync::lock;
use crate::sys;
use serde::{Deserialize, Serialize};
use std::fs::Metadata;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// How many outputs make a batch, about: some 20 MB of memory. A million of them, which is a
/// cache of tens of gigabytes, are two, and two walks over all actions.
pub(super) const BATCH: u64 = 1 << 19;

/// A shard that changes while it is counted is counted again, this often at most.
const COUNTS: u32 = 5;

/// What a store is kept within.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The most that outputs may take on disk, in bytes.
    pub max_size: u64,
    /// What was not used for so long goes.
    pub max_age: Duration,
    /// How much of the file system is left free, in bytes; by default a part of it.
    pub min_free: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_size: MAX_SIZE,
            max_age: MAX_AGE,
            min_free: None,
        }
    }
}

impl Limits {
    /// How much of such a file system is left free, in bytes. Without anything a build could
    /// not even be registered.
    pub fn floor(&self, space: sys::Space) -> u64 {
        self.min_free
            .unwrap_or_else(|| (space.total / MIN_FREE_PART).min(MIN_FREE_MAX))
            .max((space.total / MIN_FREE_LEAST_PART).min(MIN_FREE_LEAST_MAX))
    }

    /// How many files such a file system must still be able to take. Some file systems have no limit.
    pub fn files_floor(&self, space: sys::Space) -> u64 {
        (space.files / MIN_FREE_LEAST_PART).min(MIN_FREE_FILES_MAX)
    }
}

/// What a sweep is to achieve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goal {
    /// The most that outputs may take on disk afterwards, in bytes.
    pub keep: u64,
    /// What was not used for so long goes. Nothing at all stays when this is zero.
    pub max_age: Duration,
}

impl Store {
    /// Whether the limits ask for a sweep now; if so, what it is to achieve.
    ///
    /// # Errors
    /// When the file system does not say how full it is.
    pub fn overdue(&self, limits: &Limits) -> Result<Option<Goal>> {
        let goal = self.goal(limits)?;
        let is_short = self.size() > 0 && goal.keep < limits.max_size / 100 * EVICT_TO_PERCENT;
        Ok((self.size() > limits.max_size || is_short).then_some(goal))
    }

    /// What a sweep to these limits is to achieve.
    ///
    /// # Errors
    /// When the file system does not say how full it is.
    pub fn goal(&self, limits: &Limits) -> Result<Goal> {
        let space = sys::space(&self.root)?;
        let floor = limits.floor(space);
        let mut keep = limits.max_size / 100 * EVICT_TO_PERCENT;
        if space.free < floor {
            // Some more, so as not to be back at once.
            let wanted = floor - space.free + floor / 10;
            keep = keep.min(self.size().saturating_sub(wanted));
        }
        let floor = limits.files_floor(space);
        if space.free_files < floor {
            let wanted = floor - space.free_files + floor / 10;
            keep = keep.min(without_files(self.usage.size(), wanted));
        }
        Ok(Goal {
            keep,
            max_age: limits.max_age,
        })
    }

    /// Evicts what must go to reach a goal, and clears what nothing names. With
    /// `dry_run` it only says what would go.
    ///
    /// # Errors
    /// When the store cannot be listed, or this is to stop. What is done by then is done.
    pub fn sweep(&self, goal: &Goal, dry_run: bool, stop: &AtomicBool) -> Result<Swept> {
        let _alone = lock(&self.sweeping);
        let start = self.now();
        let survey = self.survey(start, stop)?;
        let mut quota = survey.quota(goal);
        let mut swept = Swept {
            left_outputs: survey.size.outputs,
            left_bytes: survey.size.bytes,
            live_bytes: survey.live_bytes,
            set_aside: self.sweep_aside(start, dry_run)?,
            ..Swept::default()
        };
        for shards in survey.batches(self.batch_size) {
            let mut batch = Batch::of(survey.outputs_in(&shards));
            // Each batch walks over all of them, and finds those that are left.
            let gone_before = swept.actions;
            let mut actions = 0;
            self.walk_outputs(shards.clone(), stop, |output, metadata| {
                batch.add(output, metadata, start, &mut quota);
            })?;
            batch.outputs.sort_unstable_by_key(|(output, _)| *output);
            self.walk_actions(stop, |action, entry| {
                actions += 1;
                let gone = match batch.note(action, entry, &shards) {
                    ActionState::Fine(entry) => self.expire(&action, &entry, goal, start, dry_run),
                    ActionState::Dangling(entry) => dry_run || self.forgets(&action, &entry),
                    ActionState::Damaged => {
                        dry_run || self.get(&action).is_ok_and(|found| found.is_none())
                    }
                    ActionState::Elsewhere => false,
                };
                swept.actions += u64::from(gone);
            })?;
            batch.named.sort_unstable();
            for (victims, actions) in batch.victims() {
                if dry_run {
                    swept.outputs += 1;
                    swept.actions += actions.len() as u64;
                    swept.bytes += victims.bytes;
                    continue;
                }
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                match self.evict(&victims.output, actions, start) {
                    Ok(Some(actions)) => {
                        swept.outputs += 1;
                        swept.actions += actions;
                        swept.bytes += victims.bytes;
                    }
                    // Use again in the meantime.
                    Ok(None) => {}
                    Err(e) => log::warn(format!("cannot evict an output: {}", e.chain())),
                }
            }
            swept.oldest = swept.oldest.max(batch.oldest);
            let gone_now = if dry_run {
                swept.actions
            } else {
                swept.actions - gone_before
            };
            swept.left_actions = u64::saturating_sub(actions, gone_now);
        }
        swept.left_outputs = swept.left_outputs.saturating_sub(swept.outputs);
        swept.left_bytes = swept.left_bytes.saturating_sub(swept.bytes);
        Ok(swept)
    }

    /// Counts what there is, and corrects what the store believes to have.
    fn survey(&self, start: SystemTime, stop: &AtomicBool) -> Result<Survey> {
        let mut survey = Survey::default();
        let mut base = (0, 0);
        for shard in ALL {
            let mut tries = 0;
            let (counted, added) = loop {
                let before = self.added_in(shard);
                let counted = self.survey_shard(shard, start, stop)?;
                let after = self.added_in(shard);
                tries += 1;
                if before == after || tries == COUNTS {
                    break (counted, after);
                }
            };
            let bytes: u64 = counted.iter().map(|seen| seen.bytes).sum();
            base.0 += bytes as i64 - added.0;
            base.1 += counted.len() as i64 - added.1;
            survey.shards[shard] = counted.len() as u64;
            for seen in counted {
                survey.add(seen);
            }
        }
        self.usage.correct(base);
        Ok(survey)
    }

    /// Under the lock, for an output that is there has then been added too.
    fn added_in(&self, shard: usize) -> (i64, i64) {
        let mut any = OutputId([0; ID_LEN]);
        any.0[0] = shard as u8;
        let _shard = self.shards.lock(&any);
        self.usage.added(shard)
    }

    fn survey_shard(
        &self,
        shard: usize,
        start: SystemTime,
        stop: &AtomicBool,
    ) -> Result<Vec<Sample>> {
        let mut counted = Vec::new();
        self.walk_outputs(shard..shard + 1, stop, |output, metadata| {
            // A clock that was ahead must not keep an output for ever.
            if modified(metadata)
                .duration_since(start)
                .is_ok_and(|ahead| ahead > USE_RECORDED_EVERY)
            {
                self.record_use(
                    || self.output_path(&output),
                    modified(metadata),
                    Duration::ZERO,
                );
            }
            counted.push(Sample {
                bytes: size_on_disk(metadata.len()),
                age: start.duration_since(modified(metadata)).unwrap_or_default(),
                can_go: can_go(metadata, start),
                is_live: metadata.nlink() > 1,
            });
        })?;
        Ok(counted)
    }

    /// Counts all that there is.
    ///
    /// # Errors
    /// When the store cannot be listed, or this is to stop.
    pub fn contents(&self, stop: &AtomicBool) -> Result<Contents> {
        let survey = self.survey(self.now(), stop)?;
        Ok(Contents {
            outputs: survey.size.outputs,
            bytes: survey.size.bytes,
            live_bytes: survey.live_bytes,
            actions: self.count_actions(stop)?,
            oldest: survey.oldest.as_secs(),
            set_aside: self.set_aside_bytes()?,
        })
    }

    /// Removes an output with the actions that name it, unless it has been used since or
    /// is in use; says how many actions went.
    fn evict(
        &self,
        output: &OutputId,
        actions: &[(u32, ActionId)],
        start: SystemTime,
    ) -> Result<Option<u64>> {
        let held = self.shards.lock(output);
        let Ok(metadata) = fs::metadata(&self.output_path(output)) else {
            return Ok(None);
        };
        if held.contains(output) || !can_go(&metadata, start) {
            return Ok(None);
        }
        let mut gone = 0;
        for (_, action) in actions {
            if self
                .get(action)?
                .is_some_and(|entry| entry.output == *output)
            {
                fs::remove_file(&self.action_path(action))?;
                gone += 1;
            }
        }
        self.remove_output(output)?;
        Ok(Some(gone))
    }

    /// Removes an action that has not been used for long while its output was.
    fn expire(
        &self,
        action: &ActionId,
        entry: &Entry,
        goal: &Goal,
        start: SystemTime,
        dry_run: bool,
    ) -> bool {
        // Its use is recorded so seldom, and only when it is as old.
        let limit = goal.max_age.max(2 * ACTION_USE_RECORDED_EVERY);
        let too_old = |time| start.duration_since(time).is_ok_and(|age| age > limit);
        if !too_old(entry.put_at()) {
            return false;
        }
        let path = self.action_path(action);
        let _shard = self.shards.lock(&entry.output);
        let unused = || fs::symlink_metadata(&path).is_ok_and(|m| too_old(modified(&m)));
        if !unused() || self.get(action).ok().flatten() != Some(*entry) {
            return false;
        }
        dry_run || fs::remove_file(&path).is_ok()
    }

    fn forgets(&self, action: &ActionId, entry: &Entry) -> bool {
        self.forget_dangling(action, entry).unwrap_or_else(|e| {
            log::warn(e.chain());
            false
        })
    }
}

/// How much of a store, in bytes, leaves so many files fewer: an output and its action are two.
fn without_files(size: Size, files: u64) -> u64 {
    let have = size.outputs.max(1) * 2;
    let left = have.saturating_sub(files);
    (u128::from(size.bytes) * u128::from(left) / u128::from(have)) as u64
}

/// Whether an output can be evicted at all: not used since, and by no live build.
fn can_go(metadata: &Metadata, start: SystemTime) -> bool {
    metadata.nlink() == 1 && modified(metadata) < start
}

/// An output as the first walk sees it.
#[derive(Debug)]
struct Sample {
    bytes: u64,
    /// The time since its last use.
    age: Duration,
    can_go: bool,
    is_live: bool,
}

/// What a first walk finds.
#[derive(Debug)]
struct Survey {
    size: Size,
    live_bytes: u64,
    /// The time since the least recent use.
    oldest: Duration,
    /// Outputs in each shard.
    shards: [u64; ALL.end],
    /// Bytes that can go, by the time since their last use.
    ages: Vec<u64>,
}

/// Ages below this are told apart by the second, others by the hour.
const FINE: u64 = 2 * 24 * 60 * 60;

/// Older ages than ten years are all one.
const AGES: usize = FINE as usize + 10 * 365 * 24;

fn age_index(age: Duration) -> usize {
    let seconds = age.as_secs();
    let index = if seconds < FINE {
        seconds
    } else {
        FINE + (seconds - FINE) / (60 * 60)
    };
    usize::try_from(index).map_or(AGES - 1, |index| index.min(AGES - 1))
}

impl Default for Survey {
    fn default() -> Self {
        Self {
            size: Size::default(),
            live_bytes: 0,
            oldest: Duration::ZERO,
            shards: [0; ALL.end],
            ages: vec![0; AGES],
        }
    }
}

impl Survey {
    fn add(&mut self, seen: Sample) {
        self.size.outputs += 1;
        self.size.bytes += seen.bytes;
        self.oldest = self.oldest.max(seen.age);
        if seen.can_go {
            self.ages[age_index(seen.age)] += seen.bytes;
        } else if seen.is_live {
            self.live_bytes += seen.bytes;
        }
    }

    /// Which ages have to go.
    fn quota(&self, goal: &Goal) -> Quota {
        let mut excess = self.size.bytes.saturating_sub(goal.keep);
        let mut quota = Quota {
            max_age: goal.max_age,
            left: excess,
            all_from: AGES,
            part_of: AGES,
            part: 0,
        };
        for (age, bytes) in self.ages.iter().enumerate().rev() {
            if excess == 0 {
                break;
            }
            if *bytes > excess {
                quota.part_of = age;
                quota.part = excess;
                break;
            }
            quota.all_from = age;
            excess -= bytes;
        }
        quota
    }

    fn outputs_in(&self, shards: &Range<usize>) -> usize {
        self.shards[shards.clone()].iter().sum::<u64>() as usize
    }

    /// Ranges of shards that have not too many outputs together.
    fn batches(&self, size: u64) -> Vec<Range<usize>> {
        let mut batches = Vec::new();
        let (mut from, mut outputs) = (0, 0);
        for (shard, count) in self.shards.iter().enumerate() {
            if outputs > 0 && outputs + count > size {
                batches.push(from..shard);
                (from, outputs) = (shard, 0);
            }
            outputs += count;
        }
        batches.push(from..ALL.end);
        batches
    }
}

/// What has to go, by the time since its last use.
#[derive(Debug)]
struct Quota {
    max_age: Duration,
    /// Bytes that still have to go. A build that ends between the two walks makes outputs evictable that no age
    /// here was counted for, and not all of those have to go.
    left: u64,
    /// All with this age index or a higher one.
    all_from: usize,
    /// Some of this age index …
    part_of: usize,
    /// … so many bytes.
    part: u64,
}

impl Quota {
    fn takes(&mut self, age: Duration, bytes: u64) -> bool {
        let index = age_index(age);
        let is_of_part = index == self.part_of && self.part > 0;
        if is_of_part {
            self.part = self.part.saturating_sub(bytes);
        }
        let is_wanted = self.left > 0 && (is_of_part || index >= self.all_from);
        let takes = is_wanted || age > self.max_age;
        if takes {
            self.left = self.left.saturating_sub(bytes);
        }
        takes
    }
}

/// The outputs of some shards, and what is to become of them.
#[derive(Debug, Default)]
struct Batch {
    /// Sorted by ID once they are all there.
    outputs: Vec<(OutputId, Verdict)>,
    /// The actions that name an output that is to go, with its place in `outputs`.
    named: Vec<(u32, ActionId)>,
    /// The time since the least recent use of what stays, in seconds.
    oldest: u64,
}

#[derive(Clone, Copy, Debug)]
struct Verdict {
    /// In blocks, which are small enough a number.
    blocks: u32,
    goes: bool,
    can_go: bool,
    is_named: bool,
}

/// An output that is to go.
struct Victim {
    output: OutputId,
    bytes: u64,
}

/// What a batch makes of an action.
enum ActionState {
    /// Its output is there and stays.
    Fine(Entry),
    /// Its output is not there.
    Dangling(Entry),
    /// It is no entry.
    Damaged,
    /// It is another batch's, or goes with its output.
    Elsewhere,
}

impl Batch {
    /// With room for so many outputs: growing would take twice the memory.
    fn of(outputs: usize) -> Self {
        Self {
            outputs: Vec::with_capacity(outputs),
            ..Self::default()
        }
    }

    fn add(&mut self, output: OutputId, metadata: &Metadata, start: SystemTime, quota: &mut Quota) {
        let bytes = size_on_disk(metadata.len());
        let age = start.duration_since(modified(metadata)).unwrap_or_default();
        let can_go = can_go(metadata, start);
        let goes = can_go && quota.takes(age, bytes);
        if !goes {
            self.oldest = self.oldest.max(age.as_secs());
        }
        self.outputs.push((
            output,
            Verdict {
                blocks: u32::try_from(bytes / super::BLOCK).unwrap_or(u32::MAX),
                goes,
                can_go,
                is_named: false,
            },
        ));
    }

    fn note(
        &mut self,
        action: ActionId,
        entry: Option<Entry>,
        shards: &Range<usize>,
    ) -> ActionState {
        let Some(entry) = entry else {
            return if shards.start == 0 {
                ActionState::Damaged
            } else {
                ActionState::Elsewhere
            };
        };
        if !shards.contains(&usize::from(entry.output.0[0])) {
            return ActionState::Elsewhere;
        }
        let found = self
            .outputs
            .binary_search_by_key(&entry.output, |(output, _)| *output);
        let Ok(at) = found else {
            return ActionState::Dangling(entry);
        };
        let fate = &mut self.outputs[at].1;
        fate.is_named = true;
        if !fate.goes {
            return ActionState::Fine(entry);
        }
        // A batch has far fewer outputs.
        self.named.push((at as u32, action));
        ActionState::Elsewhere
    }

    /// The outputs that are to go, each with its actions. `named` must be sorted.
    fn victims(&self) -> impl Iterator<Item = (Victim, &[(u32, ActionId)])> {
        let mut rest = &self.named[..];
        self.outputs
            .iter()
            .enumerate()
            .filter_map(move |(at, (output, fate))| {
                if !(fate.goes || fate.can_go && !fate.is_named) {
                    return None;
                }
                let end = rest.partition_point(|(named, _)| *named as usize <= at);
                let (actions, others) = rest.split_at(end);
                rest = others;
                let victims = Victim {
                    output: *output,
                    bytes: u64::from(fate.blocks) * super::BLOCK,
                };
                Some((victims, actions))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;
    use sha2::{Digest, Sha256};

    fn survey(samples: &[(u64, u64)]) -> Survey {
        let mut survey = Survey::default();
        for (bytes, age) in samples {
            survey.add(Sample {
                bytes: *bytes,
                age: Duration::from_secs(*age),
                can_go: true,
                is_live: false,
            });
        }
        survey
    }

    fn goal(keep: u64) -> Goal {
        Goal {
            keep,
            max_age: MAX_AGE,
        }
    }

    #[test]
    fn the_oldest_go_until_the_goal_is_reached_and_no_more() {
        let samples = [(100, 5), (100, 10), (100, 20), (100, 20)];
        for (keep, taken) in [
            (400, [false, false, false, false]),
            (350, [false, false, true, false]),
            (250, [false, false, true, true]),
            (150, [false, true, true, true]),
            (0, [true; 4]),
        ] {
            let mut quota = survey(&samples).quota(&goal(keep));
            let takes = samples.map(|(bytes, age)| quota.takes(Duration::from_secs(age), bytes));
            assert_eq!(takes, taken, "keep {keep}");
        }
    }

    #[test]
    fn a_build_that_ends_during_the_sweep_loses_no_more_than_the_goal_asks_for() {
        let mut survey = survey(&[(100, 5)]);
        for _ in 0..9 {
            survey.add(Sample {
                bytes: 100,
                age: Duration::from_secs(5),
                can_go: false,
                is_live: true,
            });
        }
        let mut quota = survey.quota(&goal(300));
        // By now all ten can go.
        let taken = (0..10).filter(|_| quota.takes(Duration::from_secs(5), 100));
        assert_eq!(taken.count(), 7);
    }

    #[test]
    fn what_is_too_old_goes_whatever_the_size() {
        let mut quota = survey(&[(1, 1)]).quota(&goal(u64::MAX));
        assert!(quota.takes(MAX_AGE + Duration::from_secs(1), 1));
        assert!(!quota.takes(MAX_AGE, 1));
    }

    #[test]
    fn batches_hold_all_shards_once_and_no_more_outputs_than_wanted() {
        let mut survey = Survey::default();
        for (shard, count) in survey.shards.iter_mut().enumerate() {
            *count = shard as u64 % 3;
        }
        let batches = survey.batches(4);
        assert!(batches.iter().all(|batch| survey.outputs_in(batch) <= 4));
        let shards: Vec<_> = batches.into_iter().flatten().collect();
        assert_eq!(shards, ALL.collect::<Vec<_>>());
        assert_eq!(Survey::default().batches(4), [ALL]);
    }

    #[test]
    fn fewer_files_are_less_of_a_store_in_proportion() {
        let size = Size {
            bytes: 1000,
            outputs: 10,
        };
        for (files, left) in [(0, 1000), (5, 750), (20, 0), (100, 0)] {
            assert_eq!(without_files(size, files), left);
        }
    }

    #[test]
    fn a_sweep_in_several_batches_counts_what_stays_as_it_is() {
        let dir = TestDir::new();
        let mut store = Store::open(dir.path()).unwrap();
        store.batch_size = 4;
        for n in 0..64u8 {
            let body = [n; 10];
            let output = OutputId(Sha256::digest(body).into());
            store
                .put(&ActionId([n; 32]), &output, 10, &mut &body[..])
                .unwrap();
            let age = Duration::from_secs(100 + u64::from(n));
            fs::set_times(&store.output_path(&output), SystemTime::now() - age).unwrap();
        }
        let never = AtomicBool::new(false);
        for (dry_run, keep) in [(true, 24), (false, 24), (false, 24)] {
            let goal = goal(keep * 4096);
            let swept = store.sweep(&goal, dry_run, &never).unwrap();
            assert_eq!((swept.left_outputs, swept.left_actions), (keep, keep));
            assert_eq!(swept.left_bytes, keep * 4096);
        }
        assert_eq!(store.contents(&never).unwrap().actions, 24);
    }
}
