// The camera: offered where there is one and the browser lets this page ask for it (HTTPS or this very machine).

import { byId, make } from "./dom.js";

const QUALITY = 0.95;
const REASONS = {
  NotAllowedError: "The browser was not allowed to use the camera. Its address bar has the switch.",
  NotFoundError: "There is no camera.",
  NotReadableError: "The camera is in use by something else.",
};

/** Shows the camera's button where it works; `onPicture` gets each picture as a file. */
export function setUpCamera(onPicture) {
  const devices = navigator.mediaDevices;
  if (!devices?.getUserMedia) return;
  const offer = async () => {
    const found = await devices.enumerateDevices();
    byId("camera").hidden = !found.some((device) => device.kind === "videoinput");
  };
  devices.addEventListener("devicechange", offer);
  byId("camera").addEventListener("click", () => open(devices));
  byId("close").addEventListener("click", () => byId("viewfinder").close());
  byId("viewfinder").addEventListener("close", stop);
  byId("shoot").addEventListener("click", () => onPicture(shoot()));
  byId("video").addEventListener("playing", () => (byId("shoot").disabled = false));
  offer();
}

async function open(devices) {
  byId("camera-problem").hidden = true;
  byId("viewfinder").showModal();
  try {
    const stream = await devices.getUserMedia({ video: { facingMode: "environment" } });
    byId("video").srcObject = stream;
    if (!byId("viewfinder").open) stop(); // closed while the browser asked
  } catch (error) {
    byId("camera-problem").textContent = REASONS[error.name] ?? `The camera does not work: ${error.message}`;
    byId("camera-problem").hidden = false;
  }
}

function stop() {
  byId("video").srcObject?.getTracks().forEach((track) => track.stop());
  byId("video").srcObject = null;
  byId("shoot").disabled = true;
}

function shoot() {
  const video = byId("video");
  const canvas = make("canvas", { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  byId("viewfinder").close();
  const [, encoded] = canvas.toDataURL("image/jpeg", QUALITY).split(",");
  const bytes = Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0));
  return new File([bytes], `camera, ${new Date().toLocaleTimeString()}`);
}
