//! What the environment says, in names of ours and of others.

use super::*;

#[test]
fn the_conventional_variables_are_understood() {
    let config = from_environment(&[
        ("DATABASE_URL", "postgres://a@b/c"),
        ("REDIS_URL", "rediss://d:6380/1"),
        ("KAFKA_BROKERS", "e:9092,f:9092"),
        ("CONTENTFLOW_RUN__ON_OUTAGE", "exit"),
        ("CONTENTFLOW_RUN__ON_DATA_LOSS", "continue"),
    ])
    .unwrap();
    assert_eq!(config.database.url.expose(), "postgres://a@b/c");
    assert_eq!(config.cache.url.expose(), "rediss://d:6380/1");
    assert_eq!(config.kafka.brokers, "e:9092,f:9092");
    assert_eq!(
        (config.run.on_outage, config.run.on_data_loss),
        (OnOutage::Exit, OnDataLoss::Continue)
    );
}

#[test]
fn opentelemetrys_variables_are_understood_unless_it_is_switched_off() {
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20sentinel"),
        ("OTEL_SERVICE_NAME", "images"),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
    ];
    let traces = from_environment(&variables).unwrap().traces;
    assert_eq!(traces.endpoint.as_ref().unwrap().url(), "http://collector:4318/v1/traces");
    assert_eq!(traces.headers.iter().next().unwrap().1, "Bearer sentinel");
    assert_eq!(traces.service, "images");
    assert_eq!((traces.sampling.by_parents, traces.sampling.ratio), (true, 0.25));
    assert!(!format!("{traces:?}").contains("sentinel"));

    let with =
        |more: &[(&str, &str)]| from_environment(&[&variables[..], more].concat()).unwrap().traces;
    let own = with(&[("CONTENTFLOW_TRACES__ENDPOINT", "http://own")]);
    assert_eq!(own.endpoint.unwrap().url(), "http://own/v1/traces");
    for off in [("OTEL_SDK_DISABLED", "TRUE"), ("OTEL_TRACES_EXPORTER", "none")] {
        assert_eq!(with(&[off]).endpoint, None, "{off:?}");
    }
    for on in [
        ("OTEL_SDK_DISABLED", "false"),
        ("OTEL_TRACES_EXPORTER", "otlp"),
        ("OTEL_TRACES_EXPORTER", ""),
    ] {
        assert!(with(&[on]).endpoint.is_some(), "{on:?}");
    }
    let empty =
        from_environment(&[("OTEL_EXPORTER_OTLP_ENDPOINT", ""), ("OTEL_TRACES_SAMPLER", "")]);
    assert_eq!(empty.unwrap().traces.endpoint, None);
    let message = complaint(from_environment(&[("OTEL_TRACES_SAMPLER", "xray")]));
    assert!(message.contains("(from environment variable OTEL_TRACES_SAMPLER)"), "{message}");
    assert_eq!(
        from_file("[traces]\nsampler = 'traceidratio'\nsampler_arg = 0.5\n")
            .unwrap()
            .traces
            .sampling
            .ratio,
        0.5
    );
}

#[test]
fn what_kubernetes_sets_for_a_service_of_our_name_is_not_ours() {
    let variables = [
        ("CONTENTFLOW_STACK_DIR", "target/demo-stack"),
        ("CONTENTFLOW_SERVICE_HOST", "10.0.0.1"),
        ("CONTENTFLOW_SERVICE_PORT_HTTP", "9464"),
        ("CONTENTFLOW_PORT", "tcp://10.0.0.1:9464"),
        ("CONTENTFLOW_PORT_9464_TCP_ADDR", "10.0.0.1"),
    ];
    from_environment(&variables).unwrap();
}

#[test]
fn what_kubernetes_sets_for_a_neighbour_with_a_longer_name_is_not_ours_either() {
    let variables = [
        ("CONTENTFLOW_REDIS_PORT", "tcp://10.0.0.2:6379"),
        ("CONTENTFLOW_REDIS_PORT_6379_TCP", "tcp://10.0.0.2:6379"),
        ("CONTENTFLOW_REDIS_PORT_6379_TCP_ADDR", "10.0.0.2"),
        ("CONTENTFLOW_REDIS_PORT_6379_TCP_PORT", "6379"),
        ("CONTENTFLOW_REDIS_PORT_6379_TCP_PROTO", "tcp"),
        ("CONTENTFLOW_REDIS_SERVICE_PORT", "6379"),
        ("CONTENTFLOW_REDIS_SERVICE_PORT_HTTP", "9121"),
        ("CONTENTFLOW_REDIS_SERVICE_HOST", "10.0.0.2"),
    ];
    from_environment(&variables).unwrap();
    // A port of nobody is a mistake, and so is what no port is.
    let message = complaint(from_environment(&variables[..1]));
    assert!(message.contains("CONTENTFLOW_REDIS_PORT sets no key"), "{message}");
    for mistyped in ["CONTENTFLOW_KAFKA_TOPIC", "CONTENTFLOW_REDIS_PORTS", "CONTENTFLOW_REDIS_URL"]
    {
        let message = complaint(from_environment(&[variables[7], (mistyped, "x")]));
        assert!(message.contains(&format!("{mistyped} sets no key")), "{message}");
    }
}
