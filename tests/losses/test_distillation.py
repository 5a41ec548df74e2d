import math

import torch
from torch.testing import assert_close

from maskfree.losses.distillation import entropy, global_to_local, self_distillation, update_center


def test_literal_form_is_cross_entropy_of_distributions():
    overall, local = torch.randn(3, 11), torch.randn(3, 5, 11)
    expected = torch.stack(
        [
            -(overall[b].softmax(0) * local[b, v].log_softmax(0)).sum()
            for b in range(3)
            for v in range(5)
        ]
    ).mean()
    assert_close(global_to_local(overall, local), expected)


def test_literal_form_rewards_a_constant_answer():
    constant = torch.zeros(3, 11)
    constant[:, 4] = 50
    assert global_to_local(constant, constant[:, None].expand(3, 5, 11)) < 1e-6
    flat = torch.zeros(3, 11)
    assert_close(global_to_local(flat, flat[:, None].expand(3, 5, 11)), torch.tensor(math.log(11)))


def test_literal_form_moves_both_sides_and_the_working_one_only_the_student():
    overall, local = (
        torch.randn(3, 11, requires_grad=True),
        torch.randn(3, 5, 11, requires_grad=True),
    )
    global_to_local(overall, local).backward()
    assert overall.grad.abs().sum() > 0 and local.grad.abs().sum() > 0
    overall.grad = None
    self_distillation(overall[:, None], local, torch.zeros(11)).backward()
    assert overall.grad is None


def test_center_of_the_teachers_own_answer_flattens_its_target():
    """A teacher that says the same of every image is wholly absorbed by its center, so the student
    must say nothing.
    """
    answer = torch.randn(11)
    student = torch.randn(3, 5, 11, requires_grad=True)
    loss = self_distillation(answer.expand(3, 1, 11), student, answer)
    assert_close(loss, -(student / 0.1).log_softmax(-1).mean(-1).mean())


def test_numbers_of_the_original(fixture_tensors):
    """DINOLoss of facebookresearch/dino@7c446df: two global crops, also seen by the student, and
    six local ones.
    """
    numbers = {k.replace("two_plus_six.", ""): v for k, v in fixture_tensors("dino_loss").items()}
    schedule = numbers["mid.teacher_temp_schedule"]
    center = numbers["in.center0"][0]
    for step, epoch in enumerate([0, 1, 5]):
        flat_student = numbers[f"in.student_step{step}"].clone().requires_grad_()
        student = flat_student.view(8, 3, 24).transpose(0, 1)
        teacher = numbers[f"in.teacher_step{step}"].view(2, 3, 24).transpose(0, 1)
        # Each of the two global crops is compared with all views but itself.
        losses = [
            self_distillation(
                teacher[:, own : own + 1],
                student[:, [view for view in range(8) if view != own]],
                center,
                float(schedule[epoch]),
            )
            for own in range(2)
        ]
        loss = (losses[0] + losses[1]) / 2
        loss.backward()
        center = update_center(center, teacher.mean((0, 1)))
        assert_close(loss, numbers[f"out.loss_step{step}"], rtol=1e-5, atol=1e-6)
        assert_close(
            flat_student.grad, numbers[f"out.grad_student_step{step}"], rtol=1e-3, atol=1e-6
        )
        assert_close(center, numbers[f"out.center_step{step}"][0], rtol=1e-5, atol=1e-6)


def test_entropy_ends():
    assert_close(entropy(torch.full((2, 7), 1 / 7)), torch.full((2,), math.log(7)))
    assert_close(entropy(torch.eye(3)), torch.zeros(3))
