"""What is asked: wording, prompts, answers, chat templates."""
