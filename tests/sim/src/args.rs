//! What can be said on the command line.

/// What the program says when it is used wrongly.
pub const USAGE: &str = "\
usage: accede-sim --seeds N [--from S] [--json]    run the seeds S to S+N-1 (S is 0 unless given)
       accede-sim --seed N                         repeat one run and print its trace
       accede-sim --planted [--json]               find the planted bugs (feature planted-bugs)
Exit: 0 nothing was found (with --planted: every bug was), 1 something was, 2 wrong use.";

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arguments {
    /// Many runs.
    Seeds {
        /// The first seed.
        from: u64,
        /// How many.
        count: u64,
        /// The result as one line of JSON.
        json: bool,
    },
    /// One run with its trace.
    Seed(u64),
    /// The planted bugs.
    Planted {
        /// The result as one line of JSON.
        json: bool,
    },
    /// Print the usage.
    Help,
}

impl Arguments {
    /// Reads the command line, without the program's name.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn read(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let (mut seeds, mut from, mut seed) = (None, None, None);
        let (mut json, mut planted) = (false, false);
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--seeds" => seeds = Some(number(&argument, arguments.next())?),
                "--from" => from = Some(number(&argument, arguments.next())?),
                "--seed" => seed = Some(number(&argument, arguments.next())?),
                "--json" => json = true,
                "--planted" => planted = true,
                "--help" | "-h" => return Ok(Self::Help),
                _ => return Err(format!("unknown argument {argument:?}")),
            }
        }
        match (seeds, seed, planted) {
            (Some(0), ..) => Err("--seeds must be at least 1".to_owned()),
            (Some(count), None, false) => {
                let from = from.unwrap_or(0);
                from.checked_add(count)
                    .ok_or("--from and --seeds go beyond 64 bits")?;
                Ok(Self::Seeds { from, count, json })
            }
            (None, Some(_), false) if json => Err("--seed prints a trace, not JSON".to_owned()),
            (None, Some(seed), false) if from.is_none() => Ok(Self::Seed(seed)),
            (None, None, true) if from.is_none() => Ok(Self::Planted { json }),
            (None, None, false) => Err("one of --seeds, --seed and --planted is needed".to_owned()),
            _ => Err("these arguments do not go together".to_owned()),
        }
    }
}

fn number(name: &str, value: Option<String>) -> Result<u64, String> {
    let value = value.ok_or_else(|| format!("{name} needs a number"))?;
    value
        .parse()
        .map_err(|_| format!("{name} needs a number, not {value:?}"))
}
