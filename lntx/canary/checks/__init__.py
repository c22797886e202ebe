"""What a canary holds against the known answer: the path of the weights, the training, the exports."""
