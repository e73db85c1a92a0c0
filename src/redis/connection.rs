//! A connection to wherever the keys live. Who sends commands need not know whether that is one
//! server or a cluster.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::{Cmd, Pipeline, RedisError, RedisFuture, RedisResult, RetryMethod, Value};

use super::CacheError;

/// Commands of one connection under way in a cluster at most. With many, the client can lock itself
/// up when a slot has moved: tokio lets its task make 128 steps in a row, and a command takes a
/// handful. A command that has taken the client's lock, and may not go on for now, keeps it;
/// meanwhile the client turns to its search for the new owners, lets all commands wait, and waits
/// for the lock until the deadline.
const UNDER_WAY: usize = 8;

/// A connection to wherever the keys live.
#[derive(Clone)]
pub enum CacheConnection {
    /// The server that the URL names.
    Server(MultiplexedConnection),
    /// The master that Sentinel names, and where it is.
    Master(MultiplexedConnection, String),
    /// The nodes of a cluster. The client finds the owner of a key, and follows MOVED and ASK.
    Cluster(ClusterConnection),
}

impl CacheConnection {
    /// Whether keys live in slots, so that a command over keys of several slots is refused.
    pub fn has_slots(&self) -> bool {
        matches!(self, CacheConnection::Cluster(_))
    }

    /// Sends commands together, and returns the reply or the error of each. In a cluster they reach
    /// their nodes in any order, and each needs to be about one slot.
    ///
    /// The deadline is that of all of them, which are one write and one read; in a cluster that of
    /// each, since they go a few at a time, and many of them over a long way take as long as they
    /// take.
    ///
    /// # Errors
    ///
    /// No answer in time, the connection's error, and in a cluster that of a node that is out; some
    /// may be carried out all the same.
    pub async fn send(
        &mut self,
        commands: Vec<Cmd>,
        deadline: Duration,
    ) -> Result<Vec<RedisResult<Value>>, CacheError> {
        match self {
            CacheConnection::Server(server) | CacheConnection::Master(server, _) => {
                let mut pipeline = Pipeline::with_capacity(commands.len());
                for command in commands {
                    pipeline.add_command(command);
                }
                let replies = server.send_packed_commands(&pipeline, 0, pipeline.len());
                let replies = within(deadline, replies).await??;
                Ok(replies.into_iter().map(Value::extract_error).collect())
            }
            CacheConnection::Cluster(cluster) => send_each(cluster, &commands, deadline).await,
        }
    }
}

async fn send_each<C: ConnectionLike + Clone>(
    cluster: &C,
    commands: &[Cmd],
    deadline: Duration,
) -> Result<Vec<RedisResult<Value>>, CacheError> {
    let send = |command: &Cmd| send_one(cluster.clone(), command.clone(), deadline);
    let sent: Vec<_> = commands.iter().map(send).collect();
    let mut sent = stream::iter(sent).buffered(UNDER_WAY);
    let mut replies = Vec::with_capacity(commands.len());
    while let Some(reply) = sent.next().await {
        replies.push(unless_out(reply?)?);
    }
    // ASKING is good for the next command on its connection, whoever sends that. While slots are on
    // their way to another node, commands side by side take it from one another, and are sent back
    // until the client gives up. One by one they get through.
    for (command, reply) in commands.iter().zip(&mut replies) {
        if reply.as_ref().is_err_and(is_redirect) {
            *reply = unless_out(send(command).await?)?;
        }
    }
    Ok(replies)
}

/// A node that is out ends it: whoever asks will hold and try again, and thousands of tries before
/// that help nobody.
fn unless_out(reply: RedisResult<Value>) -> RedisResult<RedisResult<Value>> {
    match reply {
        Err(error)
            if !is_redirect(&error) && !matches!(error.retry_method(), RetryMethod::NoRetry) =>
        {
            Err(error)
        }
        reply => Ok(reply),
    }
}

fn is_redirect(error: &RedisError) -> bool {
    matches!(error.code(), Some("MOVED" | "ASK"))
}

async fn send_one(
    mut cluster: impl ConnectionLike,
    command: Cmd,
    deadline: Duration,
) -> Result<RedisResult<Value>, CacheError> {
    let reply = within(deadline, cluster.req_packed_command(&command)).await?;
    Ok(reply.and_then(Value::extract_error))
}

/// Waits for an answer, but not for ever. The client's own deadline is as long, and may be over
/// first.
async fn within<T>(
    deadline: Duration,
    answer: impl Future<Output = RedisResult<T>>,
) -> Result<RedisResult<T>, CacheError> {
    match tokio::time::timeout(deadline, answer).await {
        Ok(Err(error)) if error.is_timeout() => Err(CacheError::NoAnswer(deadline)),
        Ok(answer) => Ok(answer),
        Err(_elapsed) => Err(CacheError::NoAnswer(deadline)),
    }
}

impl ConnectionLike for CacheConnection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            CacheConnection::Server(server) | CacheConnection::Master(server, _) => {
                server.req_packed_command(cmd)
            }
            CacheConnection::Cluster(cluster) => cluster.req_packed_command(cmd),
        }
    }

    /// In a cluster, for keys of one slot alone.
    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            CacheConnection::Server(server) | CacheConnection::Master(server, _) => {
                server.req_packed_commands(pipeline, offset, count)
            }
            CacheConnection::Cluster(cluster) => {
                cluster.req_packed_commands(pipeline, offset, count)
            }
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            CacheConnection::Server(server) | CacheConnection::Master(server, _) => server.get_db(),
            CacheConnection::Cluster(cluster) => cluster.get_db(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// A cluster whose every answer takes so long.
    #[derive(Clone)]
    struct FarAway(Duration);

    impl ConnectionLike for FarAway {
        fn req_packed_command<'a>(&'a mut self, _cmd: &'a Cmd) -> RedisFuture<'a, Value> {
            Box::pin(async {
                tokio::time::sleep(self.0).await;
                Ok(Value::Int(1))
            })
        }

        fn req_packed_commands<'a>(
            &'a mut self,
            _pipeline: &'a Pipeline,
            _offset: usize,
            _count: usize,
        ) -> RedisFuture<'a, Vec<Value>> {
            unreachable!("a cluster gets one command at a time")
        }

        fn get_db(&self) -> i64 {
            0
        }
    }

    /// Of two deadlines of one length either may be over first; whoever reads the log is told the
    /// same.
    #[tokio::test(start_paused = true)]
    async fn the_deadline_of_the_client_is_told_as_ours() {
        let deadline = Duration::from_millis(200);
        let failed = async |kind| RedisResult::<()>::Err(std::io::Error::from(kind).into());
        let late = within(deadline, failed(std::io::ErrorKind::TimedOut)).await.unwrap_err();
        let never = within(deadline, std::future::pending::<RedisResult<()>>()).await.unwrap_err();
        assert_eq!([late, never].map(|it| it.to_string()), ["no answer within 200ms"; 2]);
        let gone = within(deadline, failed(std::io::ErrorKind::BrokenPipe)).await;
        assert!(gone.is_ok_and(|answer| answer.is_err()), "that is the connection's own error");
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_cluster_each_command_has_the_deadline_and_not_all_of_them() {
        let deadline = Duration::from_secs(5);
        let commands: Vec<Cmd> = std::iter::repeat_with(|| redis::cmd("DEL")).take(1_000).collect();
        let began = Instant::now();
        let replies = send_each(&FarAway(Duration::from_millis(200)), &commands, deadline).await;
        assert_eq!(replies.unwrap().len(), 1_000);
        assert!(began.elapsed() > 4 * deadline, "{:?}: not a few at a time", began.elapsed());

        let began = Instant::now();
        let silent = send_each(&FarAway(Duration::from_secs(3_600)), &commands, deadline).await;
        assert!(matches!(silent, Err(CacheError::NoAnswer(_))), "{silent:?}");
        assert_eq!(began.elapsed(), deadline);
    }
}
