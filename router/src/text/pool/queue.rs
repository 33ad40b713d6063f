//! Whose text is next.

use std::collections::HashMap;

use words::ClientId;

/// So often a client's oldest job is passed over for smaller ones of its own.
const PASSED_MAX: u32 = 16;

/// Jobs in line. Clients take turns by bytes: next is the one that has had the fewest, and of its jobs the
/// smallest. What a client has had is forgotten once all others have had as much.
#[derive(Debug)]
pub(super) struct Queue<J> {
    clients: HashMap<ClientId, Line<J>>,
    /// What the client served last had had: a newcomer begins here, neither ahead nor behind.
    level_bytes: u64,
    jobs: usize,
    next: u64,
}

/// One client's jobs, the oldest first.
#[derive(Debug)]
struct Line<J> {
    jobs: Vec<Entry<J>>,
    had_bytes: u64,
    passed: u32,
}

#[derive(Debug)]
struct Entry<J> {
    number: u64,
    bytes: usize,
    job: J,
}

// === impl Queue ===

impl<J> Default for Queue<J> {
    fn default() -> Self {
        Self { clients: HashMap::new(), level_bytes: 0, jobs: 0, next: 0 }
    }
}

impl<J> Queue<J> {
    /// Jobs in line.
    pub(super) fn len(&self) -> usize {
        self.jobs
    }

    /// Puts a job in line; returns its number.
    pub(super) fn push(&mut self, client: ClientId, bytes: usize, job: J) -> u64 {
        let (number, level) = (self.next, self.level_bytes);
        let line = self.clients.entry(client).or_insert_with(|| Line::new(level));
        if line.jobs.is_empty() {
            line.had_bytes = line.had_bytes.max(level);
        }
        line.jobs.push(Entry { number, bytes, job });
        self.next += 1;
        self.jobs += 1;
        number
    }

    /// The next job of at most `bytes_max`.
    pub(super) fn pop(&mut self, bytes_max: usize) -> Option<J> {
        let small = |line: &Line<J>| line.jobs.iter().any(|entry| entry.bytes <= bytes_max);
        let lines = self.clients.iter_mut().filter(|(_, line)| small(line));
        // By number where bytes are equal: the same order in every run.
        let (_, line) = lines.min_by_key(|(client, line)| (line.had_bytes, client.0))?;
        let level = line.had_bytes;
        let entry = line.take(bytes_max)?;
        line.had_bytes += entry.bytes as u64;
        self.level_bytes = self.level_bytes.max(level);
        self.forget(1);
        Some(entry.job)
    }

    /// Takes a job out of the line, if it is still there.
    pub(super) fn remove(&mut self, client: ClientId, number: u64) -> Option<J> {
        let line = self.clients.get_mut(&client)?;
        let at = line.jobs.iter().position(|entry| entry.number == number)?;
        let entry = line.jobs.remove(at);
        self.forget(1);
        Some(entry.job)
    }

    /// Counts `gone` jobs out, and lets go of clients who have none and no more than others.
    fn forget(&mut self, gone: usize) {
        self.jobs -= gone;
        let (idle, level) = (self.jobs == 0, self.level_bytes);
        self.clients.retain(|_, line| !line.jobs.is_empty() || line.had_bytes > level && !idle);
    }
}

// === impl Line ===

impl<J> Line<J> {
    fn new(had_bytes: u64) -> Self {
        Self { jobs: Vec::new(), had_bytes, passed: 0 }
    }

    /// The smallest job of at most `bytes_max`, or the oldest when it is its turn.
    fn take(&mut self, bytes_max: usize) -> Option<Entry<J>> {
        let oldest_is_due = self.passed >= PASSED_MAX && self.jobs[0].bytes <= bytes_max;
        let at = match oldest_is_due {
            true => 0,
            false => {
                let fitting = self.jobs.iter().enumerate().filter(|(_, e)| e.bytes <= bytes_max);
                fitting.min_by_key(|(_, entry)| (entry.bytes, entry.number))?.0
            }
        };
        self.passed = if at == 0 { 0 } else { self.passed + 1 };
        Some(self.jobs.remove(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ClientId {
        ClientId(name.bytes().next().unwrap().into())
    }

    /// Fills a queue with `client size` words and says in which order they come out.
    fn order(jobs: &str, bytes_max: usize) -> String {
        let mut queue = Queue::default();
        for job in jobs.split(", ") {
            let (client, bytes) = job.split_once(' ').unwrap();
            queue.push(key(client), bytes.parse().unwrap(), job.to_owned());
        }
        std::iter::from_fn(|| queue.pop(bytes_max)).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn turns_go_by_bytes_and_within_a_client_by_size() {
        for (jobs, bytes_max, want) in [
            ("a 900, a 10, a 5", 1000, "a 5, a 10, a 900"),
            ("a 50, a 50, a 50, b 60", 1000, "a 50, b 60, a 50, a 50"),
            ("a 900, a 900, b 1, b 2, b 3", 1000, "a 900, b 1, b 2, b 3, a 900"),
            ("a 900, b 1, a 2", 10, "a 2, b 1"),
        ] {
            assert_eq!(order(jobs, bytes_max), want, "{jobs}");
        }
    }

    #[test]
    fn a_large_text_is_passed_over_a_number_of_times_and_not_for_ever() {
        let mut queue = Queue::default();
        queue.push(key("a"), 1000, 0);
        let mut served = 0;
        loop {
            queue.push(key("a"), 1, 1);
            if queue.pop(usize::MAX) == Some(0) {
                break;
            }
            served += 1;
        }
        assert_eq!(served, PASSED_MAX);
    }

    #[test]
    fn a_newcomer_is_not_owed_what_others_had_before() {
        let mut queue = Queue::default();
        for _ in 0..3 {
            queue.push(key("a"), 1000, "a");
        }
        queue.pop(usize::MAX);
        queue.pop(usize::MAX);
        for _ in 0..3 {
            queue.push(key("b"), 600, "b");
        }
        let rest: Vec<_> = std::iter::from_fn(|| queue.pop(usize::MAX)).collect();
        assert_eq!(rest, ["b", "b", "a", "b"], "it begins level with the other");
        assert!(queue.clients.is_empty(), "and nobody is remembered at the end");
    }

    #[test]
    fn who_is_gone_has_no_place() {
        let mut queue = Queue::default();
        let number = queue.push(key("a"), 1, "gone");
        queue.push(key("b"), 2, "there");
        assert_eq!(queue.remove(key("a"), number), Some("gone"));
        assert_eq!(queue.remove(key("a"), number), None);
        assert_eq!((queue.len(), queue.pop(9), queue.pop(9)), (1, Some("there"), None));
    }
}
