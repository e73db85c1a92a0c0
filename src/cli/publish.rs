//! `contentflow publish`: what to publish, as one of three sources.

use std::io::{self, Write};

use clap::Args;

use super::failure::Failure;
use crate::clock::now_ms;
use crate::config::{Config, Overrides};
use crate::drafts::Rows;
use crate::generate::{DraftIds, Mix};
use crate::progress_bar::Bar;
use crate::publish;

/// `contentflow publish`
#[derive(Clone, Debug, Args)]
pub struct PublishArgs {
    /// One event from flags.
    #[command(flatten)]
    pub one: OneArgs,

    /// Many events from standard input, one JSON object a line; the same as -
    #[arg(long, group = "source")]
    pub ndjson: bool,

    /// Standard input
    #[arg(value_name = "-", value_parser = ["-"], group = "source", hide_possible_values = true)]
    pub input: Option<String>,

    /// Synthetic events.
    #[command(flatten)]
    pub synthetic: SyntheticArgs,

    /// Publish to this topic instead of kafka.topic
    #[arg(long)]
    pub topic: Option<String>,
}

/// One event: all five, or none.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "One event")]
pub struct OneArgs {
    /// The job that made the images
    #[arg(long, value_name = "ID", group = "source", requires_all = ["draft_id", "simple", "fancy", "trendy"])]
    pub job_id: Option<String>,
    /// The draft that they are for
    #[arg(long, value_name = "ID", requires = "job_id")]
    pub draft_id: Option<String>,
    /// The image in the style simple
    #[arg(long, value_name = "URL", requires = "job_id")]
    pub simple: Option<String>,
    /// The image in the style fancy
    #[arg(long, value_name = "URL", requires = "job_id")]
    pub fancy: Option<String>,
    /// The image in the style trendy
    #[arg(long, value_name = "URL", requires = "job_id")]
    pub trendy: Option<String>,
}

/// Synthetic events. The shares are of all events, from 0 to 1.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Synthetic events")]
pub struct SyntheticArgs {
    /// Generate this many events
    #[arg(long, value_name = "N", group = "source")]
    pub generate: Option<u64>,
    /// Events a second [default: as fast as the broker takes them]
    #[arg(long, value_name = "R", requires = "generate", value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: Option<u64>,
    /// The same seed makes the same events
    #[arg(long, value_name = "S", requires = "generate", default_value_t = 1)]
    pub seed: u64,
    /// Drafts that they are about [default: a tenth of the events]
    #[arg(long, value_name = "D", requires = "generate", value_parser = clap::value_parser!(u64).range(1..))]
    pub drafts: Option<u64>,
    /// How the drafts' ids look [default: as --create-drafts finds the column, else text]
    #[arg(long, value_name = "TYPE", requires = "generate", value_enum)]
    pub draft_ids: Option<DraftIds>,
    /// Create these drafts in the database first
    #[arg(long, requires = "generate")]
    pub create_drafts: bool,
    /// Share of events that are sent a second time
    #[arg(long, value_name = "SHARE", requires = "generate", default_value_t = 0.0, value_parser = share)]
    pub duplicates: f64,
    /// Share of events that are older than one sent before
    #[arg(long, value_name = "SHARE", requires = "generate", default_value_t = 0.0, value_parser = share)]
    pub stale: f64,
    /// Share of events that are invalid
    #[arg(long, value_name = "SHARE", requires = "generate", default_value_t = 0.0, value_parser = share)]
    pub bad: f64,
    /// Share of events of another type
    #[arg(long, value_name = "SHARE", requires = "generate", default_value_t = 0.0, value_parser = share)]
    pub foreign: f64,
}

/// What to publish.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// One event from flags.
    One {
        /// `--job-id`
        job_id: String,
        /// `--draft-id`
        draft_id: String,
        /// `--simple`, `--fancy`, `--trendy`
        urls: [String; 3],
    },
    /// NDJSON on standard input.
    Ndjson,
    /// Synthetic events.
    Synthetic {
        /// How many.
        events: u64,
        /// About how many drafts.
        drafts: u64,
    },
}

impl PublishArgs {
    /// The source that the flags name: exactly one.
    pub fn source(&self) -> Result<Source, Failure> {
        let OneArgs { job_id, draft_id, simple, fancy, trendy } = self.one.clone();
        let SyntheticArgs { generate, drafts, .. } = self.synthetic;
        if let (Some(job_id), Some(draft_id), Some(simple), Some(fancy), Some(trendy)) =
            (job_id, draft_id, simple, fancy, trendy)
        {
            return Ok(Source::One { job_id, draft_id, urls: [simple, fancy, trendy] });
        }
        if self.ndjson || self.input.is_some() {
            return Ok(Source::Ndjson);
        }
        match generate {
            Some(events) => Ok(Source::Synthetic { events, drafts: drafts.unwrap_or((events / 10).max(1)) }),
            None => Err(Failure::usage("there is nothing to publish").hint(
                "give one event (--job-id --draft-id --simple --fancy --trendy), or - for NDJSON on standard input, or \
                 --generate N",
            )),
        }
    }

    /// What the flags set in the configuration.
    pub fn overrides(&self) -> Overrides {
        Overrides::default().set("--topic", "kafka.topic", self.topic.clone())
    }
}

/// Publishes what the arguments say and writes the report.
///
/// # Errors
///
/// When nothing is named, an event breaks a rule, or a server fails.
pub async fn run(config: &Config, args: &PublishArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let kafka = &config.kafka;
    let published = match args.source()? {
        Source::One { job_id, draft_id, urls } => {
            publish::publish_one(kafka, &job_id, &draft_id, &urls)?
        }
        Source::Ndjson => publish::publish_lines(kafka, &mut io::stdin().lock())?,
        Source::Synthetic { events, drafts } => {
            let draft_ids = prepare_drafts(config, &args.synthetic, drafts).await?;
            let mix = mix(&args.synthetic, events, drafts, draft_ids);
            let mut bar = Bar::new("events", events);
            let published =
                publish::publish_generated(kafka, mix, args.synthetic.rate, &mut |sent| {
                    bar.set(sent)
                });
            bar.finish();
            published?
        }
    };
    Ok(published.report(out)?)
}

/// Creates the drafts if that is asked for. The result is how their ids look.
async fn prepare_drafts(
    config: &Config,
    args: &SyntheticArgs,
    drafts: u64,
) -> Result<DraftIds, Failure> {
    if !args.create_drafts {
        return Ok(args.draft_ids.unwrap_or_default());
    }
    let rows = Rows::connect(&config.database).await?;
    let draft_ids = args.draft_ids.unwrap_or(rows.draft_ids());
    let mut bar = Bar::new("drafts", drafts);
    let created = rows.create_generated(drafts, draft_ids, |done| bar.set(done)).await;
    bar.finish();
    tracing::info!(created = created?, drafts, "drafts are there");
    Ok(draft_ids)
}

fn mix(args: &SyntheticArgs, events: u64, drafts: u64, draft_ids: DraftIds) -> Mix {
    let SyntheticArgs {
        generate: _,
        drafts: _,
        draft_ids: _,
        create_drafts: _,
        rate,
        seed,
        duplicates,
        stale,
        bad,
        foreign,
    } = *args;
    Mix {
        seed,
        events,
        drafts,
        draft_ids,
        start_ms: now_ms(),
        spacing_us: publish::spacing_us(rate),
        duplicates,
        stale,
        bad,
        foreign,
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share is a number from 0 to 1, like 0.05".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        publish: PublishArgs,
    }

    fn source(flags: &str) -> Result<Source, String> {
        let arguments = ["publish"].into_iter().chain(flags.split_whitespace());
        let cli = Cli::try_parse_from(arguments).map_err(|error| error.kind().to_string())?;
        cli.publish.source().map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn the_flags_name_exactly_one_source() {
        let urls = ["s", "f", "t"].map(str::to_owned);
        let one = Source::One { job_id: "j".to_owned(), draft_id: "d".to_owned(), urls };
        assert_eq!(source("--job-id j --draft-id d --simple s --fancy f --trendy t"), Ok(one));
        assert_eq!(source("-"), Ok(Source::Ndjson));
        assert_eq!(source("--ndjson"), Ok(Source::Ndjson));
        assert_eq!(
            source("--generate 500 --rate 10"),
            Ok(Source::Synthetic { events: 500, drafts: 50 })
        );
        assert_eq!(
            source("--generate 3 --bad 0.5"),
            Ok(Source::Synthetic { events: 3, drafts: 1 })
        );
        for wrong in [
            "",
            "--job-id j",
            "--draft-id d",
            "- --generate 1",
            "--rate 5",
            "--generate 1 --bad 1.5",
            "x",
        ] {
            assert!(source(wrong).is_err(), "{wrong}");
        }
    }
}
