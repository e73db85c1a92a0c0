//! A connection to wherever the keys live. Who sends commands need not know whether that is one server or a cluster.

use futures_util::{StreamExt, stream};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::{Cmd, Pipeline, RedisError, RedisFuture, RedisResult, RetryMethod, Value};

/// Commands of one connection under way in a cluster at most. With many, the client can lock itself up when a slot has moved: tokio lets
/// its task make 128 steps in a row, and a command takes a handful. A command that has taken the client's lock, and may not go on for now,
/// keeps it; meanwhile the client turns to its search for the new owners, lets all commands wait, and waits for the lock until the
/// deadline.
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

    /// Sends commands together, and returns the reply or the error of each. In a cluster they reach their nodes in any order, and
    /// each needs to be about one slot.
    ///
    /// # Errors
    ///
    /// The connection's, and in a cluster that of a node that is out; some may be carried out all the same.
    pub async fn send(&mut self, commands: Vec<Cmd>) -> RedisResult<Vec<RedisResult<Value>>> {
        match self {
            CacheConnection::Server(server) | CacheConnection::Master(server, _) => {
                let mut pipeline = Pipeline::with_capacity(commands.len());
                for command in commands {
                    pipeline.add_command(command);
                }
                let replies = server.send_packed_commands(&pipeline, 0, pipeline.len()).await?;
                Ok(replies.into_iter().map(Value::extract_error).collect())
            }
            CacheConnection::Cluster(cluster) => send_each(cluster, &commands).await,
        }
    }
}

async fn send_each(
    cluster: &ClusterConnection,
    commands: &[Cmd],
) -> RedisResult<Vec<RedisResult<Value>>> {
    let sent: Vec<_> = commands.iter().map(|one| send_one(cluster.clone(), one.clone())).collect();
    let mut sent = stream::iter(sent).buffered(UNDER_WAY);
    let mut replies = Vec::with_capacity(commands.len());
    while let Some(reply) = sent.next().await {
        replies.push(unless_out(reply)?);
    }
    // ASKING is good for the next command on its connection, whoever sends that. While slots are on their way to another node, commands
    // side by side take it from one another, and are sent back until the client gives up. One by one they get through.
    for (command, reply) in commands.iter().zip(&mut replies) {
        if reply.as_ref().is_err_and(is_redirect) {
            *reply = unless_out(send_one(cluster.clone(), command.clone()).await)?;
        }
    }
    Ok(replies)
}

/// A node that is out ends it: whoever asks will hold and try again, and thousands of tries before that help nobody.
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

async fn send_one(mut cluster: ClusterConnection, command: Cmd) -> RedisResult<Value> {
    cluster.req_packed_command(&command).await?.extract_error()
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
