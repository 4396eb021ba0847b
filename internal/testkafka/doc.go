// Package testkafka runs a real Kafka for tests and measurements: a cluster of
// one or more nodes on loopback, as child processes, from Kafka's own published
// jars. It needs Java and Maven and no container.
//
//	cluster, err := testkafka.Start(ctx, testkafka.Options{})
//	if err != nil { … }
//	defer cluster.Close()
//	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.Brokers()...))
//
// Nodes can be stopped, killed, frozen and started again, at the same addresses
// and with the same data. Whatever a cluster started or wrote is gone when the
// process that started it is, even if that was killed.
package testkafka
