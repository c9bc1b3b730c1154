"""Many hospitals on one machine: the trainer, the strategies and the rounds of a real run, without Flower between."""
