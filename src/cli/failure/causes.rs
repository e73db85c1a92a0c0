//! How a command ends for each cause, and what to do about it.

use super::{FAILED, Failure, OUTAGE, USAGE};
use crate::check::DraftTableError;
use crate::config::ConfigError;
use crate::dead_letters::DlqError;
use crate::demo::{DemoError, ELSEWHERE};
use crate::drafts::DraftError;
use crate::http::BindError;
use crate::kafka::{KafkaError, is_away};
use crate::migrate::MigrateError;
use crate::publish::PublishError;
use crate::redis::CacheError;
use crate::replay::ReplayError;
use crate::run::RunError;
use crate::scan::ScanError;
use crate::source::SourceError;
use crate::tune::error::TuneError;
use crate::tune::scratch::ScratchError;
use crate::verify::VerifyError;
use crate::{postgres, redis};

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        let lines = error
            .problems
            .into_iter()
            .map(|problem| (problem.what(), Some(problem.remedy)))
            .collect();
        Failure { exit_code: USAGE, lines }
    }
}

impl From<KafkaError> for Failure {
    fn from(error: KafkaError) -> Failure {
        let exit_code = match &error {
            KafkaError::Unreachable { .. } => OUTAGE,
            KafkaError::Properties(_) => USAGE,
            KafkaError::MissingTopic(_)
            | KafkaError::NotCreated { .. }
            | KafkaError::Refused(_) => FAILED,
        };
        Failure::new(exit_code, error.what()).hint(error.remedy())
    }
}

impl From<postgres::ConnectError> for Failure {
    fn from(error: postgres::ConnectError) -> Failure {
        let exit_code = match &error {
            postgres::ConnectError::BadUrl { .. } => USAGE,
            outage if outage.is_outage() => OUTAGE,
            _ => FAILED,
        };
        Failure::new(exit_code, error.what()).hint(error.remedy())
    }
}

impl From<redis::ConnectError> for Failure {
    fn from(error: redis::ConnectError) -> Failure {
        let exit_code = match &error {
            redis::ConnectError::BadUrl { .. } => USAGE,
            outage if outage.is_outage() => OUTAGE,
            _ => FAILED,
        };
        Failure::new(exit_code, error.what()).hint(error.remedy())
    }
}

impl From<CacheError> for Failure {
    fn from(error: CacheError) -> Failure {
        let what = format!("the cache failed: {error}");
        match error {
            CacheError::Connect(error) => error.into(),
            outage if outage.is_outage() => Failure::outage(what).hint("check the cache"),
            CacheError::NoAnswer(_) | CacheError::Refused(_) => Failure::failed(what).hint(
                "check the rights of the user in cache.url (docs/cache.md), and the server's log",
            ),
        }
    }
}

impl From<MigrateError> for Failure {
    fn from(error: MigrateError) -> Failure {
        match error {
            MigrateError::Connect(error) => error.into(),
            MigrateError::Refused { what, remedy } => Failure::failed(what).hint(remedy),
            MigrateError::Output(error) => error.into(),
        }
    }
}

impl From<BindError> for Failure {
    fn from(error: BindError) -> Failure {
        Failure::failed(&error).hint(error.remedy())
    }
}

impl From<DraftTableError> for Failure {
    fn from(error: DraftTableError) -> Failure {
        match error {
            DraftTableError::Connect(error) => error.into(),
            outage if outage.is_outage() => Failure::outage(outage).hint("check the database"),
            error => Failure::failed(error).hint("`contentflow check` looks at the whole table"),
        }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Failure {
        let exit_code = if error.is_outage() { OUTAGE } else { FAILED };
        match error {
            RunError::Client(error) => error.into(),
            RunError::Table(error) => error.into(),
            RunError::Source(source @ SourceError::Deleted { .. }) => Failure::failed(source),
            RunError::Source(source) if source.is_another_topic() => {
                Failure::failed(source).hint("start again, from the topic's beginning")
            }
            error => Failure::new(exit_code, error),
        }
    }
}

impl From<ReplayError> for Failure {
    fn from(error: ReplayError) -> Failure {
        let what = error.to_string();
        match error {
            ReplayError::Kafka(error) => error.into(),
            ReplayError::Run(error) => error.into(),
            ReplayError::NoSuchPartition { count, .. } => Failure::failed(what)
                .hint(format!("its partitions are 0 to {}", count - 1)),
            ReplayError::PastTheEnd { .. } => Failure::failed(what).hint(
                "the topic was made again, or these are another topic's offsets: replay it from its beginning",
            ),
            ReplayError::Deleted { .. } => Failure::failed(what).hint(
                "run.on_data_loss = \"continue\" goes on with what there is",
            ),
            ReplayError::Offsets { source, .. }
                if source.rdkafka_error_code().is_some_and(is_away) =>
            {
                Failure::outage(what).hint("check the brokers")
            }
            ReplayError::Offsets { .. } => {
                Failure::failed(what).hint("check [kafka.properties] and the ACLs")
            }
            ReplayError::Interrupted { source, next: _ } => {
                Failure::from(RunError::Source(source))
            }
        }
    }
}

impl From<TuneError> for Failure {
    fn from(error: TuneError) -> Failure {
        let what = error.to_string();
        match error {
            TuneError::Plan(error) => error.into(),
            TuneError::Run(error) => error.into(),
            TuneError::Scratch(error) => error.into(),
            TuneError::Empty(_) | TuneError::NoEvent { .. } => Failure::failed(what)
                .hint("name another topic with --topic, or publish something: `contentflow publish --generate 200000`"),
            TuneError::NoRow { .. } => Failure::failed(what).hint(
                "set database.table to the table of these drafts, or measure without it: --effects none",
            ),
            TuneError::Connections { .. } => Failure::failed(what)
                .hint("give it fewer --workers or --connections, or PostgreSQL more max_connections"),
            TuneError::Budget { took_s, .. } => Failure::failed(what).hint(format!(
                "give it --budget {:.0} or more, or fewer --events",
                20.0 * took_s.max(1.0)
            )),
            TuneError::Stopped => Failure::failed(what),
        }
    }
}

impl From<ScratchError> for Failure {
    fn from(error: ScratchError) -> Failure {
        let what = error.to_string();
        match error {
            ScratchError::Connect(error) => error.into(),
            ScratchError::NotAllowed { grant, .. } => Failure::failed(what)
                .hint(format!("{grant}; or measure without the database: --effects none")),
            ScratchError::Published { .. } => Failure::failed(what).hint(
                "measure without the database: --effects none; or on another database, with a copy of the table",
            ),
            ScratchError::InUse(_) => Failure::failed(what).hint("wait until it has ended"),
            ScratchError::NotOurs { table, .. } => Failure::failed(what)
                .hint(format!("drop {table} as its owner; a tune that was killed has left it")),
            ScratchError::NameTaken(table) => {
                Failure::failed(what).hint(format!("rename {table}, or drop it if nobody needs it"))
            }
            error if error.is_outage() => Failure::outage(what)
                .hint("check the database, and tune again: that drops what is left of the copy"),
            ScratchError::NoTable(_)
            | ScratchError::NoName(_)
            | ScratchError::Silent { .. }
            | ScratchError::Refused { .. } => {
                Failure::failed(what).hint("measure without the database: --effects none")
            }
        }
    }
}

impl From<VerifyError> for Failure {
    fn from(error: VerifyError) -> Failure {
        match error {
            VerifyError::Topic(error) => error.into(),
            VerifyError::Connect(error) => error.into(),
            VerifyError::Table(error) => error.into(),
            VerifyError::Cache(error) => error.into(),
            VerifyError::Silent { .. } | VerifyError::NotMended(_) => {
                Failure::outage(error).hint("check the database, and verify again")
            }
            VerifyError::Database { .. } if error.is_outage() => {
                Failure::outage(error).hint("check the database, and verify again")
            }
            VerifyError::Output(error) => error.into(),
            // A run needs some columns, and what is compared with the cache is the whole row.
            VerifyError::Database { ref source, .. } if postgres::is_forbidden(source) => {
                Failure::failed(error).hint(
                    "whole rows are compared: GRANT SELECT ON the table of database.table, all its columns, TO the user of database.url",
                )
            }
            VerifyError::Database { .. } => Failure::failed(error).hint(
                "`contentflow check` looks at the table and at what its user may do; else the server's log tells more",
            ),
            VerifyError::Workers(_) => Failure::failed(error)
                .hint("try it with fewer --workers; where that is no help, please report it"),
            VerifyError::Interrupted => Failure::failed(error),
        }
    }
}

impl From<ScanError> for Failure {
    fn from(error: ScanError) -> Failure {
        match error {
            ScanError::Kafka(error) => error.into(),
            _ if error.is_outage() => Failure::outage(&error).hint(error.remedy()),
            ScanError::Corrupt { .. }
            | ScanError::Silent { .. }
            | ScanError::Unreadable { .. }
            | ScanError::MadeAgain { .. } => Failure::failed(&error).hint(error.remedy()),
        }
    }
}

impl From<DlqError> for Failure {
    fn from(error: DlqError) -> Failure {
        match error {
            DlqError::Kafka(error) => error.into(),
            DlqError::Output(error) => error.into(),
            DlqError::Scan(error) => error.into(),
            _ if error.is_outage() => Failure::outage(&error).hinted(error.remedy()),
            _ => Failure::failed(&error).hinted(error.remedy()),
        }
    }
}

impl From<DraftError> for Failure {
    fn from(error: DraftError) -> Failure {
        match error {
            DraftError::Connect(error) => error.into(),
            DraftError::Cache(error) => error.into(),
            DraftError::Output(error) => error.into(),
            _ if error.is_outage() => Failure::outage(&error).hinted(error.remedy()),
            DraftError::InvalidId { .. } | DraftError::BadId(_) | DraftError::Data(_) => {
                Failure::usage(&error)
            }
            _ => Failure::failed(&error).hinted(error.remedy()),
        }
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Failure {
        match error {
            PublishError::Kafka(error) => error.into(),
            PublishError::Mix(error) => Failure::usage(error),
            PublishError::Silent { .. } => Failure::outage(&error).hint("check the brokers"),
            PublishError::Send { .. } => Failure::failed(error)
                .hint("check [kafka.properties], and message.max.bytes among them"),
            PublishError::Delivery { .. } => Failure::failed(error).hint(
                "look into the broker's log, and publish all of it again: what comes twice is recognised by its jobId",
            ),
            PublishError::Line { line, .. } => Failure::failed(error)
                .hint(format!("mend it, and publish from there on: tail -n +{line}")),
            PublishError::Invalid(_) | PublishError::Input { .. } => Failure::failed(error),
        }
    }
}

impl From<DemoError> for Failure {
    fn from(error: DemoError) -> Failure {
        match error {
            DemoError::InUse(_) => Failure::failed(error).hint(ELSEWHERE),
            DemoError::Interrupted => Failure::failed(error),
            DemoError::Cache(error) => error.into(),
            DemoError::NotReady(problems) => Failure::problems(problems),
            DemoError::Postgres(error) => error.into(),
            DemoError::Table(error) => error.into(),
            DemoError::Kafka(error) => error.into(),
            DemoError::Migrate(error) => error.into(),
            DemoError::Draft(error) => error.into(),
            DemoError::Publish(error) => error.into(),
            DemoError::Run(error) => error.into(),
            DemoError::DeadLetters(error) => error.into(),
            DemoError::Output(error) => error.into(),
        }
    }
}
