//! One line of a story, word by word.

use accede_core::{LockKey, LockMode, OnTrouble, Payload, RowLock, StepPlan};

use super::Told;

/// What is left of a line.
pub(super) struct Line<'a> {
    words: Vec<&'a str>,
    at: usize,
}

impl<'a> Line<'a> {
    /// Words end at spaces, commas and colons; what stands in quotes is one word.
    pub(super) fn new(line: &'a str) -> Self {
        let mut words = Vec::new();
        let mut rest = line.trim();
        while let Some(first) = rest.chars().next() {
            let end = match first {
                '"' => rest[1..].find('"').map_or(rest.len(), |end| end + 2),
                ',' | ':' => 1,
                _ => rest
                    .find(|c: char| c.is_whitespace() || c == ',' || c == ':')
                    .unwrap_or(rest.len()),
            };
            words.push(&rest[..end]);
            rest = rest[end..].trim_start();
        }
        Self { words, at: 0 }
    }

    pub(super) fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    /// The next word, whatever it is; `what` says what it should be.
    pub(super) fn word(&mut self, what: &str) -> Told<&'a str> {
        let word = self.peek().ok_or_else(|| format!("{what} is missing"))?;
        self.at += 1;
        Ok(word)
    }

    /// Takes these words if they are next.
    pub(super) fn eat(&mut self, words: &str) -> bool {
        let wanted = words.split(' ').count();
        let found = self.words[self.at..].iter().take(wanted);
        let eaten = found.copied().eq(words.split(' '));
        self.at += if eaten { wanted } else { 0 };
        eaten
    }

    pub(super) fn expect(&mut self, word: &str) -> Told<()> {
        match self.word(word)? {
            found if found == word => Ok(()),
            found => Err(format!("expected {word:?}, found {found:?}")),
        }
    }

    /// What stands in quotes, if that is next.
    pub(super) fn text(&mut self) -> Option<&'a str> {
        let text = self.peek()?.strip_prefix('"')?.strip_suffix('"')?;
        self.at += 1;
        Some(text)
    }

    pub(super) fn number(&mut self, what: &str) -> Told<u64> {
        let word = self.word(what)?;
        word.parse().map_err(|_| format!("{word:?} is no {what}"))
    }

    /// `2s`, `250ms` or `10min`, in milliseconds.
    pub(super) fn duration(&mut self) -> Told<u64> {
        let word = self.word("a duration")?;
        let units = [("ms", 1), ("s", 1_000), ("min", 60_000)];
        let ms = units.into_iter().find_map(|(unit, ms)| {
            let number: u64 = word.strip_suffix(unit)?.parse().ok()?;
            Some(number * ms)
        });
        ms.ok_or_else(|| format!("{word:?} is no duration such as 250ms, 2s or 10min"))
    }

    /// `apple, pear shared, plum -3 to 7`
    pub(super) fn row_locks(&mut self) -> Told<Vec<RowLock>> {
        let mut locks = vec![self.row_lock()?];
        while self.eat(",") {
            locks.push(self.row_lock()?);
        }
        Ok(locks)
    }

    fn row_lock(&mut self) -> Told<RowLock> {
        let key = LockKey::from(self.word("a row")?.as_bytes());
        if self.eat("shared") {
            let mode = LockMode::Shared;
            return Ok(RowLock { key, mode });
        }
        let delta = self.peek().and_then(|word| word.parse().ok());
        let Some(delta) = delta else {
            return Ok(RowLock::from(key));
        };
        self.at += 1;
        self.expect("to")?;
        let value = self.number("a value")? as i64;
        let mode = super::escrow(delta, value);
        Ok(RowLock { key, mode })
    }

    /// `hotel on ship after flight after car attempts 2 within 5s with "LIS"`, or `… forward`
    pub(super) fn step(&mut self, earlier: &[StepPlan]) -> Told<StepPlan> {
        let name = self.word("a step")?;
        self.expect("on")?;
        let mut step = StepPlan {
            name: name.into(),
            resource: self.word("an action")?.into(),
            callback: false,
            input: Payload::default(),
            after: vec![],
            attempt_timeout_ms: 10_000,
            on_trouble: OnTrouble::Backward { attempts: 3 },
        };
        loop {
            if self.eat("after") {
                let name = self.word("a step")?;
                let place = earlier.iter().position(|step| *step.name == *name);
                let place = place.ok_or_else(|| format!("{name} is no earlier step"))?;
                step.after.push(place as u16);
            } else if self.eat("forward") {
                step.on_trouble = OnTrouble::Forward;
            } else if self.eat("attempts") {
                let attempts = self.number("a number of attempts")? as u32;
                step.on_trouble = OnTrouble::Backward { attempts };
            } else if self.eat("within") {
                step.attempt_timeout_ms = self.duration()? as u32;
            } else if self.eat("with") {
                let input = self.text().ok_or("the input is missing")?;
                step.input = Payload::from(input.as_bytes());
            } else {
                return Ok(step);
            }
        }
    }

    pub(super) fn end(&self) -> Told<()> {
        match self.peek() {
            None => Ok(()),
            Some(word) => Err(format!("{word:?} has no sense here")),
        }
    }
}
